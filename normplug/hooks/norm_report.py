"""Log which normalizers a training really trains."""

from collections import Counter
from collections.abc import Iterable

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from normplug.hooks.mean_teacher import has_lost_statistics, twins_in_student
from normplug.hooks.of_runner import hook_of
from normplug.models.wrappers import unwrapped
from normplug.norms import PN, BaseNorm
from normplug.register import NORMS

__all__ = [
    'NormReportHook',
    'norm_report',
    'norm_state',
    'norms_under_norm_eval',
    'population_report',
    'precise_bn_report',
    'sync_bn_report',
    'teacher_report',
]

_FOREIGN = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
_NORMS = (BaseNorm, *_FOREIGN)
_LOST = 'in a teacher that never gets their statistics'
# Of a ResNet of mm; the second one of mmaction2's, which leaves its first norm alone.
_STOPPING = ('norm_eval', 'partial_bn')
_STATES = ('training', 'evaluating', 'frozen', 'averaged', _LOST)


def norm_state(layer: nn.Module) -> str:
    """Return ``'frozen'`` if no parameter or statistic of ``layer`` changes, else its mode.

    A batch norm of ``requires_grad=False`` in training mode is ``'training'``: its statistics
    move. With ``norm_eval=True`` and trainable parameters it is ``'evaluating'``.
    """
    trains = any(parameter.requires_grad for parameter in layer.parameters())
    if not (trains or _moves_statistics(layer)):
        return 'frozen'
    return 'training' if layer.training else 'evaluating'


def _moves_statistics(layer: nn.Module) -> bool:
    if isinstance(layer, BaseNorm):
        return layer.training and layer.moves_statistics
    return layer.training and getattr(layer, 'running_mean', None) is not None


def norm_report(model: nn.Module, mean_teacher: Hook | None = None) -> str:
    """Return a line with the number of norm layers of each type and state, our types first.

    Args:
        model: any.
        mean_teacher: mmdet's ``MeanTeacherHook``, if that averages ``model.student`` into
            ``model.teacher``. Norms of the teacher are then said to be averaged, and without it too
            those whose statistics do not follow the student's are told.
    """
    counts: dict[tuple[bool, str], Counter[str]] = {}
    twins = twins_in_student(model, _NORMS)
    for layer in model.modules():
        if isinstance(layer, _NORMS):
            key = (not isinstance(layer, BaseNorm), _type_name(layer))
            state = _teacher_state(layer, twins.get(layer), mean_teacher)
            counts.setdefault(key, Counter())[state or norm_state(layer)] += 1
    parts = [
        f'{name} ' + ', '.join(f'{states[state]} {state}' for state in _STATES if states[state])
        for (_, name), states in sorted(counts.items(), key=lambda item: item[0])
    ]
    return f'norms: {"; ".join(parts) or "none"}'


def _teacher_state(
    layer: nn.Module, student: nn.Module | None, mean_teacher: Hook | None
) -> str | None:
    """Return the state of a norm of a teacher, if its mode does not show it."""
    if student is None:
        return None
    if has_lost_statistics(layer, student):
        return _LOST
    if mean_teacher is None:
        return None
    if mean_teacher.skip_buffers and _moves_statistics(student):
        return _LOST
    return 'frozen' if norm_state(student) == 'frozen' else 'averaged'


def teacher_report(model: nn.Module, mean_teacher: Hook | None = None) -> str | None:
    """Return what is wrong with the norms of ``model.teacher`` and the key to set, or None."""
    twins = twins_in_student(model, _NORMS)
    lost = [t for t, s in twins.items() if _teacher_state(t, s, mean_teacher) == _LOST]
    if not lost:
        return None
    types = ', '.join(sorted({_type_name(layer) for layer in lost}))
    return (
        f'the teacher does not get the changing running statistics of its student: {len(lost)} '
        f'norms of the type {types} keep their initial statistics, so that pseudo labels and tests '
        'of the teacher are wrong. MeanTeacherHook leaves buffers out unless the config '
        "has custom_hooks=[dict(type='MeanTeacherHook', skip_buffer=False)]"
    )


def population_report(model: nn.Module) -> list[str]:
    """Return a line for each way in which PN layers of ``model`` begin to use the population.

    And one for those that draw σ_B by a kurtosis that nothing estimates.
    """
    starts: Counter[str] = Counter()
    for layer in model.modules():
        if not (isinstance(layer, PN) and layer.training and layer.moves_statistics):
            continue
        if layer.is_batch_norm:
            starts["noise='both' is batch norm"] += 1
            continue
        if hasattr(layer, 'kurtosis') and not layer.is_estimated:
            starts[
                f'noise={layer.noise!r}, samples={layer.samples:g}: nothing estimates the '
                "kurtosis, which stays the checkpoint's, or 0, a Gaussian's: add "
                "dict(type='PopulationHook') to custom_hooks"
            ] += 1
        seen, warmup = int(layer.num_batches_tracked), layer.warmup
        then = f'the {layer.population} population'
        if seen >= warmup:
            unknown = seen == 0 and layer.population == 'running'
            starts[
                f'{then} from the start, {seen} batches counted'
                + unknown * ', so of mean 0 and variance 1: set warmup of norm_cfg'
            ] += 1
        else:
            starts[
                f'statistics of the batch for the first {warmup - seen} batches, then {then}'
            ] += 1
    return [f'PN: {number} layers: {start}' for start, number in starts.items()]


def precise_bn_report(model: nn.Module, hooks: Iterable[Hook]) -> str | None:
    """Return which norms of ours mmpretrain's ``PreciseBNHook`` leaves out, or None."""
    ours = [m for m in model.modules() if isinstance(m, BaseNorm) and m.moves_statistics]
    ours = [layer for layer in ours if not isinstance(layer, _NormBase)]
    if not (ours and hook_of(hooks, 'PreciseBNHook')):
        return None
    types = ', '.join(sorted({_type_name(layer) for layer in ours}))
    return (
        f'PreciseBNHook recomputes the statistics of batch norms only, not those of {types}: use '
        "dict(type='PreciseBNStatsHook') in its place, which does it for both"
    )


def norms_under_norm_eval(model: nn.Module) -> dict[str, set[str]]:
    """Return, for each option of a module that stops its batch norms, our types that still train.

    The keys say which: ``'norm_eval=True of backbone'``.
    """
    found = {}
    for name, module in model.named_modules():
        options = [option for option in _STOPPING if getattr(module, option, False) is True]
        ours = (layer for layer in module.modules() if options and isinstance(layer, BaseNorm))
        types = {_type_name(layer) for layer in ours if norm_state(layer) == 'training'}
        if types:
            found[f'{options[0]}=True of {name or type(module).__name__}'] = types
    return found


def sync_bn_report(model: nn.Module, sync_bn: str) -> str | None:
    """Return which of our norms in ``model`` are not converted by ``sync_bn``, or None."""
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

    Says for how many batches PN layers normalize by the batch, and where nothing estimates the
    kurtosis of the noise that they draw. Warns if a part with
    ``norm_eval=True`` or ``partial_bn=True`` has normalizers of this package: mm's models apply
    them to torch's batch norms only. Says the same of ``sync_bn`` and of mmpretrain's
    ``PreciseBNHook``. Warns of a semi-supervised teacher whose norms do not get the statistics of
    the student, at the start and before it is validated or tested.
    """

    def __init__(self) -> None:
        self._reported = False
        self._warned_of_teacher = False

    def before_train(self, runner: Runner) -> None:
        """Report again if the same runner trains again."""
        self._reported = False

    def before_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        """Report at the first iteration: only then the loop has set the training mode."""
        if self._reported:
            return
        self._reported = True
        model = unwrapped(runner.model)
        mean_teacher = hook_of(runner.hooks, 'MeanTeacherHook')
        runner.logger.info(norm_report(model, mean_teacher))
        for line in population_report(model):
            runner.logger.info(line)
        self._warn_of_teacher(runner, mean_teacher)
        left_out = precise_bn_report(model, runner.hooks)
        if left_out:
            runner.logger.warning(left_out)
        if runner.cfg.get('sync_bn'):
            left_alone = sync_bn_report(model, runner.cfg.sync_bn)
            if left_alone:
                runner.logger.info(left_alone)
        found = norms_under_norm_eval(model)
        if found:
            types = sorted(set().union(*found.values()))
            runner.logger.warning(
                f'{", ".join(found)} does not apply to {", ".join(types)}: these '
                f"stay in training mode; to freeze them, norm_cfg=dict(type='{types[0]}', "
                'frozen=True)'
            )

    def before_val(self, runner: Runner) -> None:
        """Warn of a teacher without statistics, whichever hook averages it."""
        self._warn_of_teacher(runner)

    before_test = before_val

    def _warn_of_teacher(self, runner: Runner, mean_teacher: Hook | None = None) -> None:
        warning = teacher_report(unwrapped(runner.model), mean_teacher)
        if warning and not self._warned_of_teacher:
            self._warned_of_teacher = True
            runner.logger.warning(warning)
