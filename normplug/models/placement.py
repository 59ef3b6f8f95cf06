"""Replace norms at chosen layers of any model, by patterns on their names."""

import difflib
import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import chain

from mmengine.logging import print_log
from mmengine.registry import MODELS
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from normplug.models.calls import refused_arguments
from normplug.models.references import References
from normplug.models.replace import carry_over, takes_channels_last, why_irreplaceable
from normplug.norms import BaseNorm

__all__ = ['norm_placement', 'place_norms']

_NORMS = (BaseNorm, _NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def norm_placement(
    model_type: str | type | None = None, norms: Sequence[Mapping] | None = None, **model
) -> nn.Module:
    """Build a model and place ``norms`` in it: ``type='NormPlacement'`` in a config.

    A config sets ``model.type`` to it and gives the old type as ``model_type``; every other key of
    ``model`` stays. It also works for a part of a model, for example ``backbone.type``.

    Args:
        model_type: the type of the model to build, a name or a class.
        norms: as in :func:`place_norms`.
        model: the arguments of ``model_type``.

    Returns:
        The model, of the class that ``model_type`` is or names.

    Raises:
        ValueError: an argument is missing, or ``model_type`` is unknown; see also
            :func:`place_norms`.
    """
    if not model_type:
        raise ValueError(
            "type='NormPlacement' needs model_type, the type of the model to build, e.g. "
            "model_type='FasterRCNN'"
        )
    if not norms:
        raise ValueError(
            "type='NormPlacement' needs norms, e.g. "
            "norms=[dict(where='backbone.*', norm_cfg=dict(type='SN'))]"
        )
    with MODELS.switch_scope_and_registry(None) as registry:
        if isinstance(model_type, str) and registry.get(model_type) is None:
            similar = difflib.get_close_matches(model_type, registry.module_dict)
            hint = f'; did you mean {", ".join(similar)}?' if similar else ''
            raise ValueError(f"model_type: {registry.scope} has no type '{model_type}'{hint}")
    built = MODELS.build(dict(type=model_type, **model))
    place_norms(built, norms)
    return built


def place_norms(model: nn.Module, norms: Sequence[Mapping]) -> None:
    """Replace norm layers of ``model``, in place, and log what was replaced.

    A new layer keeps the name of the old one (also in checkpoints), its number of channels, device,
    dtype, training mode, hooks and process group. If the parameters of the old layer are not
    trained, neither are those of the new one. Its values are initial values: load weights later.

    Args:
        model: any model, before it is wrapped and before an optimizer sees it.
        norms: dicts of ``where``, a shell pattern (``*``, ``?``, ``[1-3]``; ``*`` matches dots too)
            on the full names of norm layers in ``model``, and ``norm_cfg``, what to build there.

    Raises:
        ValueError: a pattern matches no norm layer, two match the same one, an entry is malformed,
            or the axis of the channels differs; or a layer does more than normalize, is called
            with arguments that the new one does not take, shares a tensor with another module, or
            is also kept in an attribute that is not a submodule. The model is unchanged then.
    """
    _check_entries(norms)
    layers: dict[nn.Module, list[str]] = {}  # a layer may be shared, and then has several names
    for name, layer in model.named_modules(remove_duplicate=False):
        if isinstance(layer, _NORMS):
            layers.setdefault(layer, []).append(name)
    found = _match([entry['where'] for entry in norms], layers, model)
    references = References(model)
    # All are built before the first is replaced: an error leaves the model as it was.
    placed = [
        {old: _replacement(old, layers[old], entry['norm_cfg'], model, references) for old in at}
        for entry, at in zip(norms, found, strict=True)
    ]
    for entry, replaced in zip(norms, placed, strict=True):
        for old, new in replaced.items():
            carry_over(old, new)
            for name in layers[old]:
                parent, _, own = name.rpartition('.')
                module = model.get_submodule(parent)
                setattr(module, own, new)
                # mmcv's ConvModule has chosen its forward by the old norm.
                if getattr(module, 'efficient_conv_bn_eval_forward', None) is not None:
                    module.turn_on_efficient_conv_bn_eval()
        print_log(_summary(entry['where'], replaced, layers), 'current', logging.INFO)


def _check_entries(norms: Sequence[Mapping]) -> None:
    if not isinstance(norms, (list, tuple)):
        raise ValueError(f"norms must be a list of dicts of 'where' and 'norm_cfg', got {norms!r}")
    for i, entry in enumerate(norms):
        if not (
            isinstance(entry, Mapping)
            and set(entry) == {'where', 'norm_cfg'}
            and isinstance(entry['where'], str)
            and isinstance(entry['norm_cfg'], Mapping)
            and 'type' in entry['norm_cfg']
        ):
            raise ValueError(
                f"norms.{i} must be a dict of two keys, as in dict(where='backbone.*', "
                f"norm_cfg=dict(type='SN')); got {entry!r}"
            )


def _match(
    patterns: list[str], layers: dict[nn.Module, list[str]], model: nn.Module
) -> list[list[nn.Module]]:
    """Return the layers that each pattern matches, in the order of the model."""
    found: list[list[nn.Module]] = [[] for _ in patterns]
    for layer, names in layers.items():
        hits = [
            i
            for i, pattern in enumerate(patterns)
            if any(fnmatchcase(name, pattern) for name in names)
        ]
        if len(hits) > 1:
            both = ' and '.join(f"'{patterns[i]}' (norms.{i})" for i in hits[:2])
            raise ValueError(f'the norm layer {names[0]} is matched by {both}: narrow one of them')
        if hits:
            found[hits[0]].append(layer)
    for i, (pattern, at) in enumerate(zip(patterns, found, strict=True)):
        if not at:
            names = list(chain.from_iterable(layers.values()))
            some = difflib.get_close_matches(pattern, names, n=6, cutoff=0.0) or ['none']
            raise ValueError(
                f"norms.{i}.where: '{pattern}' matches none of the {len(names)} norm layers of the "
                f'model, such as {", ".join(some)}. {_other_norms(pattern, model)}A part without '
                'norms (as the FPN and the box head of mmdet by default) first needs a norm_cfg of '
                'its own.'
            )
    return found


def _other_norms(pattern: str, model: nn.Module) -> str:
    """Return the matches that are norms by their name only, such as FrozenBatchNorm2d.

    Each such class has parameters and a call of its own.
    """
    kinds = {
        type(layer).__name__: name
        for name, layer in model.named_modules()
        if fnmatchcase(name, pattern) and re.search('Norm|BN|GRN', type(layer).__name__)
    }
    told = ', '.join(f'{kind} (at {name})' for kind, name in kinds.items())
    return f'Not a subclass of a norm of torch, and not replaced: {told}. ' if told else ''


def _replacement(
    old: nn.Module,
    names: list[str],
    norm_cfg: Mapping,
    model: nn.Module,
    references: References,
) -> nn.Module:
    from mmcv.cnn import build_norm_layer

    name, kind = names[0], norm_cfg['type']
    reason = why_irreplaceable(old)
    reason = f'{reason}, which would be lost' if reason else references.beside_names(old)
    if reason:
        raise ValueError(
            f'the norm layer {name} cannot become {kind}: {type(old).__name__} {reason}. Narrow '
            'the pattern, or build the model with a plain norm there'
        )
    if isinstance(old, nn.GroupNorm):
        channels = old.num_channels
    elif isinstance(old, (nn.LayerNorm, nn.RMSNorm)):
        channels = old.normalized_shape[-1]
    else:
        channels = old.num_features
    try:
        new = build_norm_layer(dict(norm_cfg), channels)[1]
    except ValueError as error:  # as of a number that does not divide the channels
        raise ValueError(f'{error} (at the norm layer {name})') from error
    if takes_channels_last(old) != takes_channels_last(new):
        last, second = (old, new) if takes_channels_last(old) else (new, old)
        raise ValueError(
            f'the norm layer {name} cannot become {kind}: {type(last).__name__} '
            f'normalizes the last axis, {type(second).__name__} takes channels on axis 1'
        )
    for known in names:
        parent, _, own = known.rpartition('.')
        caller = model.get_submodule(parent)
        refused = refused_arguments(caller, own, new)
        if refused:
            raise ValueError(
                f'the norm layer {known} cannot become {kind}: {type(caller).__name__} calls it '
                f'with {refused}, which {type(new).__name__} does not take. Narrow the pattern to '
                'other layers'
            )
    return new


def _is_untrained(layer: nn.Module) -> bool:
    parameters = list(layer.parameters())
    return bool(parameters) and not any(p.requires_grad for p in parameters)


def _summary(
    where: str, replaced: dict[nn.Module, nn.Module], layers: dict[nn.Module, list[str]]
) -> str:
    kinds = Counter(f'{type(old).__name__} → {type(new).__name__}' for old, new in replaced.items())
    untrained = sum(map(_is_untrained, replaced))
    names = [layers[old][0] for old in replaced]
    return (
        f"norms at '{where}': {', '.join(f'{n} {kind}' for kind, n in kinds.items())}"
        f'{f" ({untrained} of requires_grad=False, which stays)" if untrained else ""}: '
        f'{", ".join(names)}'
    )
