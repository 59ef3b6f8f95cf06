"""Stop a training whose loss is NaN or Inf, and say where that began."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from mmengine.dist import all_gather_object, all_reduce
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor

from normplug.errors import TrainingError
from normplug.hooks.of_runner import wrappers_in
from normplug.models.wrappers import unwrapped
from normplug.nonfinite import Search, all_finite
from normplug.random_state import get_random_state, set_random_state

__all__ = ['NonFiniteLossError', 'NonFiniteLossHook']

_COPIES = ('cuda',)  # devices from which a copy need not be waited for


class NonFiniteLossError(TrainingError):
    """The loss or the weights have NaN or Inf."""


@HOOKS.register_module()
class NonFiniteLossHook(Hook):
    """Stop when the loss is NaN or Inf, before the step that would spoil the weights.

    The hook then repeats the forward pass, with the same batch and the same random numbers, and
    watches every module, to name the first one whose inputs are finite and whose output is not. It
    may also be the weights, the input or a term of the loss. Before that it watches no module.
    Independently of ``interval``, no checkpoint with NaN or Inf in its weights is written (buffers
    that have such values from the start, like masks, may keep them).

    With several ranks, one number is reduced over them, so that all of them stop and none waits
    forever. On a CPU the check is made before backward. On a GPU it starts there and is read after
    backward was launched, but before the step: the host waits for the forward pass while the device
    runs the backward pass, and the device never idles. (mmengine's ``RuntimeInfoHook``
    waits for the whole iteration, at its end.) An optimizer wrapper whose ``update_params`` does
    not call its ``backward`` is checked after its step on a GPU; the message then names the
    weights. Gradients of NaN from a finite loss are seen in the next iteration that is checked.

    Args:
        interval: number of iterations between checks. With more than 1, the optimizer may step with
            NaN before the check; the message then names the weights that became NaN.

    Raises:
        NonFiniteLossError: on all ranks.
    """

    priority = 'LOWEST'  # the random state is that of the forward pass, whatever other hooks draw

    def __init__(self, interval: int = 1) -> None:
        if interval < 1:
            raise ValueError(f'NonFiniteLossHook: interval must be at least 1, not {interval}')
        self.interval = interval
        self._batch: Any = None
        self._state: dict[str, Any] | None = None  # of the iteration, if it is to be checked
        self._pending: _Check | None = None
        self._repeating = False
        self._exempt: frozenset[str] = frozenset()

    def before_train(self, runner: Runner) -> None:
        """Put the check in front of the optimizer's step."""
        self._exempt = frozenset(
            name for name, value in unwrapped(runner.model).named_buffers() if not all_finite(value)
        )
        for one in wrappers_in(runner.optim_wrapper):
            one.update_params = self._checked(runner, type(one).update_params.__get__(one))
            if hasattr(one, 'backward'):  # not DeepSpeed's
                one.backward = self._read_after(runner, type(one).backward.__get__(one))

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Keep what is needed to repeat the forward pass."""
        if (runner.iter + 1) % self.interval == 0:
            self._batch, self._state = data_batch, get_random_state()

    def after_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        """Release the batch."""
        self._batch = self._state = None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Raise instead of saving weights of NaN or Inf."""
        states = [checkpoint['state_dict'], checkpoint.get('ema_state_dict') or {}]
        spoiled = [
            name
            for state in states
            for name, value in state.items()
            if not all_finite(value) and name.removeprefix('module.') not in self._exempt
        ]
        if spoiled:
            raise NonFiniteLossError(
                f'{len(spoiled)} tensors of the model, {spoiled[0]} among them, have NaN or Inf '
                f'after {runner.iter} to {runner.iter + 1} iterations: a step had such gradients. '
                f'They were not written to a checkpoint. {_advice(runner)}'
            )

    def _checked(self, runner: Runner, update_params: Callable) -> Callable:
        def check_and_update(loss: Tensor, *args: Any, **kwargs: Any) -> None:
            if self._repeating:
                raise _RepeatedError
            if self._state is not None:
                self._pending = _Check(loss)
                if not self._pending.is_copying:
                    self._read(runner)
            update_params(loss, *args, **kwargs)
            self._read(runner, steps=1)

        return check_and_update

    def _read_after(self, runner: Runner, backward: Callable) -> Callable:
        def backward_and_read(*args: Any, **kwargs: Any) -> None:
            try:
                backward(*args, **kwargs)
            finally:  # an error caused by the NaN is not the one to report
                self._read(runner)

        return backward_and_read

    def _read(self, runner: Runner, steps: int = 0) -> None:
        """Raise if the started check found NaN or Inf; ``steps`` were taken since it started."""
        check, self._pending = self._pending, None
        if check is not None and check.is_bad():
            self._stop(runner, check.loss, runner.iter + steps)

    def _stop(self, runner: Runner, loss: Tensor, steps: int) -> None:
        # On all ranks: layers with statistics of all ranks communicate in the pass, and hand the
        # NaN of one to the others, so that the place to tell is the earliest.
        order, place = self._where_it_began(runner, steps)
        found = all_gather_object((math.inf, '') if all_finite(loss) else (order, place))
        first, place = min(found)
        ranks = [str(rank) for rank, (order, _) in enumerate(found) if order == first]
        where = f'{place} (rank {", ".join(ranks)})' if len(found) > 1 else place
        raise NonFiniteLossError(
            f'the loss is NaN or Inf in iteration {runner.iter + 1} (epoch {runner.epoch + 1}). '
            f'It began in {where}. {_advice(runner)}'
        )

    def _where_it_began(self, runner: Runner, steps: int) -> tuple[int, str]:
        search = Search(unwrapped(runner.model), self._exempt)
        set_random_state(self._state)
        self._repeating = True
        try:
            # force_eager: a compiled train_step would not call the hooks of modules.
            with torch.no_grad(), torch.compiler.set_stance('force_eager'), search.watching():
                runner.model.train_step(self._batch, optim_wrapper=runner.optim_wrapper)
        except _RepeatedError:
            pass
        finally:
            self._repeating = False
        return search.result(steps)


class _Check:
    """Whether the loss of any rank is NaN or Inf.

    Attributes:
        loss: of this rank.
        is_copying: whether :meth:`is_bad` waits for the device, and should be called later.
    """

    def __init__(self, loss: Tensor) -> None:
        self.loss = loss.detach()
        bad = (~torch.isfinite(self.loss)).any().float()
        all_reduce(bad)
        self.is_copying = bad.device.type in _COPIES
        self._bad = bad.to('cpu', non_blocking=True) if self.is_copying else bad
        self._copied = torch.cuda.Event() if bad.is_cuda else None
        if self._copied is not None:
            self._copied.record()

    def is_bad(self) -> bool:
        if self._copied is not None:
            self._copied.synchronize()
        return bool(self._bad)


class _RepeatedError(Exception):
    """Raised when the repeated pass reaches the step."""


def _advice(runner: Runner) -> str:
    last = runner.message_hub.runtime_info.get('last_ckpt')
    kept = f'The last checkpoint, {last}, is from before' if last else 'There is no checkpoint yet'
    return (
        f'{kept}. Try a lower learning rate, a longer warm-up or optim_wrapper.clip_grad; on a GPU '
        'with AMP also full precision'
    )
