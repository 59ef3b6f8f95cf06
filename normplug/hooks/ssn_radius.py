"""Set the radius of SSN by the progress of training."""

from numbers import Real

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn

from normplug.errors import UnsuitableModelError
from normplug.hooks.mean_teacher import twins_in_student
from normplug.hooks.of_runner import averaged_models, hook_of
from normplug.models.wrappers import unwrapped
from normplug.norms import SSN
from normplug.norms.ssn import set_radius

__all__ = ['SSNRadiusHook']

_STARTS = 'ssn_radius_starts'  # in the message hub, which checkpoints keep: layer name → radius
_STATE = ('radius', 'mean_choice', 'var_choice')


@HOOKS.register_module()
class SSNRadiusHook(Hook):
    """Raise the radius of every SSN linearly, from its current value to ``end``.

    As in the paper, the radius is the fraction of iterations done, and all layers have decided
    after 81.65 % (sqrt(2/3)) of them. Layers that have decided do not change. A layer loaded before
    its decision continues from the radius in the checkpoint, while other layers start at 0;
    ``SSN.reset_ratios`` makes a layer start again. A resumed training continues as if it had not
    been interrupted.

    The copy of the model in an ``EMAHook`` and the teacher of a ``MeanTeacherHook`` get the same
    radius and choices, which are not averaged.

    Args:
        end: radius at the end of training, in [0, 1].

    Raises:
        ValueError: ``end`` is out of range.
        UnsuitableModelError: the model has no SSN that trains; one that has not decided stands
            above ``end`` already.
    """

    priority = 'LOW'  # after EMAHook has averaged, before a checkpoint is written

    def __init__(self, end: float = 1.0) -> None:
        if not (isinstance(end, Real) and 0 <= end <= 1):
            raise ValueError(f'SSNRadiusHook: end must lie in [0, 1], got {end!r}')
        self.end = end

    def before_train(self, runner: Runner) -> None:
        """Find the radius from which each layer starts, once: checkpoints keep it."""
        model = unwrapped(runner.model)
        mean_teacher = hook_of(runner.hooks, 'MeanTeacherHook')
        twins = twins_in_student(model, (SSN,)) if mean_teacher else {}
        layers = {
            name: layer
            for name, layer in model.named_modules()
            if isinstance(layer, SSN) and not layer.frozen and layer not in twins
        }
        if not layers:
            raise UnsuitableModelError(
                'SSNRadiusHook: the model has no SSN that trains; remove the hook, or use '
                "norm_cfg=dict(type='SSN')"
            )
        info = runner.message_hub.runtime_info
        # The second: resumed from the checkpoint of a training without this hook.
        if runner.iter == 0 or _STARTS not in info:
            # An average over models, as a checkpoint may hold it, rounds.
            radii = {name: min(layer.radius.item(), 1.0) for name, layer in layers.items()}
            starts = {name: radii[name] for name, layer in layers.items() if not layer.is_decided()}
            runner.message_hub.update_info(_STARTS, starts)
        starts = info[_STARTS]
        late = next((name for name, start in starts.items() if start > self.end + 1e-6), None)
        if late:
            raise UnsuitableModelError(
                f'SSNRadiusHook: the radius of {late} stands at {starts[late]:.3f} already, above '
                f'end={self.end}; raise end, or call reset_ratios() on the SSN layers'
            )
        self._groups = {
            start: nn.ModuleList(layers[name] for name in starts if starts[name] == start)
            for start in sorted(set(starts.values()))
        }
        for start, group in self._groups.items():
            runner.logger.info(f'SSN: radius from {start:g} to {self.end:g} in {len(group)} layers')
        if len(starts) < len(layers):
            runner.logger.info(f'SSN: {len(layers) - len(starts)} layers have decided before')
        averaged = [unwrapped(copy) for copy in averaged_models(runner)]
        copies = [
            (layer, copy.get_submodule(name)) for copy in averaged for name, layer in layers.items()
        ]
        copies += [(student, teacher) for teacher, student in twins.items()]
        # One operation each: torch takes tensors of different types one by one.
        self._copies = [
            tuple([getattr(pair[i], key) for pair in copies] for i in (1, 0)) for key in _STATE
        ]

    def before_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        """Set the radius of this iteration."""
        progress = runner.iter / runner.max_iters
        for start, layers in self._groups.items():
            set_radius(layers, start + (self.end - start) * progress)

    def after_train_iter(self, *args, **kwargs) -> None:
        """Copy radius and choices to the averaged models."""
        for own, values in self._copies:
            if own:
                torch._foreach_copy_(own, values)
