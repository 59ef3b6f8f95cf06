"""What two configs of one row, at full scale and at digits scale, have different."""

from fnmatch import fnmatch

from mmengine.config import Config

# What a Runner reads. The other top-level names of a config (classes, pipelines, data_root, …) are
# its own variables, whose values stand in these.
KEYS = (
    *('model', 'data_preprocessor', 'default_scope', 'randomness'),
    *('train_dataloader', 'val_dataloader', 'test_dataloader', 'val_evaluator', 'test_evaluator'),
    *('train_cfg', 'val_cfg', 'test_cfg', 'optim_wrapper', 'param_scheduler', 'auto_scale_lr'),
    *('default_hooks', 'custom_hooks', 'tta_model', 'tta_pipeline', 'load_from'),
)


def differences(full: Config, digits: Config) -> set[str]:
    """The dotted names of the values that differ; of a list of dicts, with the index.

    Lists of different lengths, or of dicts of different types, differ as a whole.
    """
    both = ({key: cfg.get(key) for key in KEYS} for cfg in (full, digits))
    return set(_differing(*map(_plain, both), ''))


def not_allowed(full: Config, digits: Config, whitelist: tuple[str, ...]) -> list[str]:
    """Those of the differences that match no pattern of the whitelist."""
    found = differences(full, digits)
    return sorted(key for key in found if not any(fnmatch(key, p) for p in whitelist))


def _plain(value):
    """Dicts and lists only: mmengine's ConfigDict raises for missing keys.

    Without `_scope_`, by which mmengine notes what base a value was read from.
    """
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if key != '_scope_'}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _differing(a, b, name):
    if isinstance(a, dict) and isinstance(b, dict):
        for key in {**a, **b}:
            yield from _differing(a.get(key), b.get(key), f'{name}.{key}' if name else str(key))
    elif _same_kinds(a, b):
        for index, (one, other) in enumerate(zip(a, b, strict=True)):
            yield from _differing(one, other, f'{name}.{index}')
    elif a != b:
        yield name


def _same_kinds(a, b) -> bool:
    """Whether both are lists of dicts, of the same types in the same order."""
    if not (isinstance(a, list) and isinstance(b, list) and a and len(a) == len(b)):
        return False
    pairs = list(zip(a, b, strict=True))
    return all(isinstance(x, dict) and isinstance(y, dict) for x, y in pairs) and all(
        x.get('type') == y.get('type') for x, y in pairs
    )
