"""Which normalizers a training really trains, in its log."""

from collections import Counter

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from normplug.norms import BaseNorm
from normplug.register import NORMS

__all__ = [
    'NormReportHook',
    'norm_report',
    'norm_state',
    'norms_under_norm_eval',
    'sync_bn_report',
]

_FOREIGN = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
_STATES = ('training', 'evaluating', 'frozen')


def norm_state(layer: nn.Module) -> str:
    """``'frozen'`` if neither a parameter nor a statistic of ``layer`` moves, or else its mode.

    A batch norm of ``requires_grad=False`` in training mode is ``'training'``: its statistics
    move. With ``norm_eval=True`` and trainable parameters it is ``'evaluating'``.
    """
    if isinstance(layer, BaseNorm):
        has_statistics = layer.batch_from is not None and not layer.frozen
    else:
        has_statistics = getattr(layer, 'running_mean', None) is not None
    if not (layer.training and has_statistics) and not any(
        parameter.requires_grad for parameter in layer.parameters()
    ):
        return 'frozen'
    return 'training' if layer.training else 'evaluating'


def norm_report(model: nn.Module) -> str:
    """One line: how many norm layers of each type are in which state, our types first."""
    counts: dict[tuple[bool, str], Counter[str]] = {}
    for layer in model.modules():
        if isinstance(layer, (BaseNorm, *_FOREIGN)):
            key = (not isinstance(layer, BaseNorm), _type_name(layer))
            counts.setdefault(key, Counter())[norm_state(layer)] += 1
    parts = [
        f'{name} ' + ', '.join(f'{states[state]} {state}' for state in _STATES if states[state])
        for (_, name), states in sorted(counts.items(), key=lambda item: item[0])
    ]
    return f'norms: {"; ".join(parts) or "none"}'


def norms_under_norm_eval(model: nn.Module) -> dict[str, set[str]]:
    """Names of the modules with ``norm_eval=True`` → types of ours in them that still train."""
    found = {}
    for name, module in model.named_modules():
        if getattr(module, 'norm_eval', False) is True:
            ours = (layer for layer in module.modules() if isinstance(layer, BaseNorm))
            types = {_type_name(layer) for layer in ours if norm_state(layer) == 'training'}
            if types:
                found[name or type(module).__name__] = types
    return found


def sync_bn_report(model: nn.Module, sync_bn: str) -> str | None:
    """What ``sync_bn`` in a config does not do to the norms of ours in ``model``; None without."""
    ours = [layer for layer in model.modules() if isinstance(layer, BaseNorm)]
    ours = [layer for layer in ours if not isinstance(layer, _NormBase)]  # a converted SyncBN
    if not ours:
        return None
    synchronized = sorted({_type_name(layer) for layer in ours if layer.synchronized})
    local = sorted({_type_name(layer) for layer in ours if not layer.synchronized})
    text = f"sync_bn='{sync_bn}' converts batch norms only, and leaves these as they are: "
    parts = [f'{", ".join(synchronized)} (synchronized anyway)'] if synchronized else []
    if local:
        hint = ', '.join(f'Sync{name}' for name in local if f'Sync{name}' in NORMS)
        hint = f'; statistics of all ranks: {hint}' if hint else ''
        parts.append(f'{", ".join(local)} (statistics of each rank{hint})')
    return text + '; '.join(parts)


def _type_name(layer: nn.Module) -> str:
    """The name in ``norm_cfg`` of ours, the class name of any other."""
    registered = (name for name, norm in NORMS.items() if norm is type(layer))
    return next(registered, type(layer).__name__)


@HOOKS.register_module()
class NormReportHook(Hook):
    """Log, once a training has begun, the norm layers by type and state.

    Warns of ``norm_eval=True`` where it meets normalizers of this package, which it does not
    reach: mm's models apply it to torch's batch norms only. Says the same of ``sync_bn``.
    """

    def __init__(self) -> None:
        self._reported = False

    def before_train(self, runner: Runner) -> None:
        """Report again if the same runner trains again."""
        self._reported = False

    def before_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        """Report at the first iteration: only then the loop has set the training mode."""
        if self._reported:
            return
        self._reported = True
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        runner.logger.info(norm_report(model))
        if runner.cfg.get('sync_bn'):
            left_alone = sync_bn_report(model, runner.cfg.sync_bn)
            if left_alone:
                runner.logger.info(left_alone)
        found = norms_under_norm_eval(model)
        if found:
            types = sorted(set().union(*found.values()))
            runner.logger.warning(
                f'norm_eval=True of {", ".join(found)} does not apply to {", ".join(types)}: these '
                f"stay in training mode; to freeze them, norm_cfg=dict(type='{types[0]}', "
                'frozen=True)'
            )
