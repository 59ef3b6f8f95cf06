"""Widen the bounds of BRN by the progress of training."""

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn

from normplug.errors import UnsuitableModelError
from normplug.models.wrappers import unwrapped
from normplug.norms import BRN
from normplug.norms.brn import check_bounds, raise_bounds

__all__ = ['BRNScheduleHook']


@HOOKS.register_module()
class BRNScheduleHook(Hook):
    """Raise r_max from 1 and d_max from 0, linearly, in every BRN that trains.

    The iterations are the paper's by default: r_max up to 3 from 5,000 to 40,000, d_max up to 5
    from 5,000 to 25,000. Many detectors train for less than that, so they count in a run of
    ``length`` iterations and are scaled to this one. A bound that is wider already, from
    ``norm_cfg`` or a checkpoint, stays until the schedule reaches it. A resumed training goes on as
    if it had not been interrupted.

    Args:
        r_max: at the end, at least 1.
        d_max: at the end, at least 0.
        begin: the iteration until which BRN is batch norm.
        r_end: the iteration from which r_max is reached.
        d_end: the iteration from which d_max is reached.
        length: iterations of the run that these are of, by default those of the 1x schedule on
            COCO; None to take them as they are.

    Raises:
        ValueError: an argument is out of range, by name.
        UnsuitableModelError: the model has no BRN that trains.
    """

    def __init__(
        self,
        r_max: float = 3.0,
        d_max: float = 5.0,
        *,
        begin: int = 5_000,
        r_end: int = 40_000,
        d_end: int = 25_000,
        length: int | None = 90_000,
    ) -> None:
        wrong = check_bounds(r_max, d_max)
        for name, value, least in (
            ('begin', begin, 0),
            ('r_end', r_end, begin),
            ('d_end', d_end, begin),
            ('length', 1 if length is None else length, 1),
        ):
            if wrong is None and not (type(value) is int and value >= least):
                wrong = f'{name} must be a number of iterations, an integer from {least}, got '
                wrong += repr(value)
        if wrong is not None:
            raise ValueError(f'BRNScheduleHook: {wrong}')
        self.r_max, self.d_max = r_max, d_max
        self.begin, self.r_end, self.d_end, self.length = begin, r_end, d_end, length

    def bounds(self, iteration: int, max_iters: int) -> tuple[float, float]:
        """Return r_max and d_max of an iteration, the first of which is 0, of so many."""
        step = iteration if self.length is None else iteration * self.length / max_iters
        r, d = (
            min(max((step - self.begin) / max(end - self.begin, 1), 0.0), 1.0)
            for end in (self.r_end, self.d_end)
        )
        return 1 + (self.r_max - 1) * r, self.d_max * d

    def before_train(self, runner: Runner) -> None:
        """Find the layers."""
        modules = unwrapped(runner.model).modules()
        self._layers = nn.ModuleList(m for m in modules if isinstance(m, BRN) and not m.frozen)
        if not self._layers:
            raise UnsuitableModelError(
                'BRNScheduleHook: the model has no BRN that trains; remove the hook, or use '
                "norm_cfg=dict(type='BRN')"
            )
        self._last = None
        runner.logger.info(
            f'BRN: r_max up to {self.r_max:g} and d_max up to {self.d_max:g} in '
            f'{len(self._layers)} layers'
        )

    def before_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        """Widen the bounds to those of this iteration."""
        bounds = self.bounds(runner.iter, runner.max_iters)
        if bounds == self._last:
            return
        self._last = bounds
        raise_bounds(self._layers, *bounds)
