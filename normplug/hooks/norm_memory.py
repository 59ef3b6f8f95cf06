"""Watch norms with memory: of a new run it begins empty, and of a shared head it is refused."""

from collections import Counter
from collections.abc import Callable
from functools import partial, wraps
from logging import WARNING
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn

from normplug.checkpoint_file import few
from normplug.errors import UnsuitableModelError
from normplug.hooks.of_runner import loss_scale, wrappers_in
from normplug.models import CenConv2d
from normplug.models.wrappers import unwrapped
from normplug.norms import MABN, BaseNorm
from normplug.running import in_recomputation

__all__ = ['NormMemoryHook']


@HOOKS.register_module()
class NormMemoryHook(Hook):
    """Look after norms that normalize by more than a batch: BRN, MABN, CBN, PN, KN, EstBCN.

    A training that does not resume begins with empty windows of MABN: those of a checkpoint are the
    gradients of another task. In each iteration MABN is told by what AMP multiplies the loss.

    MABN without any ``CenConv`` in the model is named in the log.

    A training ends, after its first iteration, if such a norm runs more often in it than the part
    of the model around it, as in a head that is shared over levels: what it remembers would be of
    another level. Not meant are activation checkpointing, a part that is called several times as a
    whole, and a norm in evaluation mode.

    ``tools/train.py`` adds the hook to a model with such norms; elsewhere, add
    ``custom_hooks=[dict(type='NormMemoryHook')]``.

    Raises:
        UnsuitableModelError: names the layers, and says what to do; nothing has been saved then. Or
            MABN is trained under AMP by several optimizers: each has a loss scale of its own.
    """

    # Before CheckpointHook saves; after the hooks that look at layers before an iteration, to which
    # a counted one has a forward of its own: KalmanLinkHook would not link it.
    priority = 80

    def before_train(self, runner: Runner) -> None:
        """Empty MABN's windows in a new run, and watch the first iteration."""
        model = unwrapped(runner.model)
        self._mabn = [layer for layer in model.modules() if isinstance(layer, MABN)]
        if self._mabn and not any(isinstance(m, CenConv2d) for m in model.modules()):
            print_log(
                f'the model has {len(self._mabn)} MABN layers and no CenConv: MABN centres '
                'nothing, and belongs behind convolutions of centred weights. Add '
                "conv_cfg=dict(type='CenConv') beside norm_cfg",
                logger='current',
                level=WARNING,
            )
        wrappers = wrappers_in(runner.optim_wrapper)
        if self._mabn and len(wrappers) > 1 and any(hasattr(w, 'loss_scaler') for w in wrappers):
            raise UnsuitableModelError(
                'MABN averages the gradients of several iterations, and cannot do so by the loss '
                f"scales of {len(wrappers)} optimizers: use type='OptimWrapper' in optim_wrapper, "
                'without AMP, or another norm'
            )
        if runner.iter == 0:
            for layer in self._mabn:
                layer.forget()
        self._calls: Counter[str] | None = None

    def _count(self, name: str, layer: nn.Module) -> None:
        rests = isinstance(layer, BaseNorm) and not layer.training
        if not (rests or in_recomputation()):
            self._calls[name] += 1

    def before_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Count the calls of the first iteration; tell MABN the scale of the loss."""
        if self._calls is None:
            self._calls = Counter()
            self._counted = CountedForwards(unwrapped(runner.model), self._count)
        if self._mabn:
            one = torch.ones((), device=self._mabn[0].weight.device)
            # Of several, none has a scale.
            self._set_scale(loss_scale(wrappers_in(runner.optim_wrapper)[0], one))

    def after_train(self, runner: Runner) -> None:
        """What comes after the training has no scale."""
        self._set_scale(None)

    def _set_scale(self, scale: Tensor | None) -> None:
        for layer in self._mabn:
            layer.loss_scale = scale

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Look at what has been counted, once."""
        if self._counted is None:
            return
        self._counted.remove()
        self._counted = None
        layers = dict(unwrapped(runner.model).named_modules())
        shared = {
            name: f'{name} ({number} times)'
            for name, number in self._calls.items()
            if is_memory(layers[name]) and number > self._calls_around(name, layers)
        }
        if not shared:
            return
        kinds = sorted({type(layers[name]).__name__ for name in shared})
        raise UnsuitableModelError(
            f'{" and ".join(kinds)} normalize by what they found before, and {len(shared)} of '
            f'these layers run several times in an iteration: {few(list(shared.values()))}. A head '
            'that is shared over levels would mix the levels: give it a norm without memory (GN, '
            'SN, SSN, FRN, GW) by its own norm_cfg or by NormPlacement, or take a head with norms '
            "of each level (mmdet's RetinaSepBNHead)"
        )

    def _calls_around(self, name: str, layers: dict[str, nn.Module]) -> int:
        """How often the outermost part around a layer was called; where none was, the model."""
        parts = name.split('.')
        around = ['.'.join(parts[:k]) for k in range(len(parts))]
        called = [part for part in around if self._calls[part]]
        models = [part for part in called if isinstance(layers[part], BaseModel)]
        inner = [part for part in called if part not in models]
        outermost = inner[:1] or models[-1:]
        return max((self._calls[part] for part in outermost), default=1)


class CountedForwards:
    """Tells of each forward of each module, until it is removed.

    A forward hook would not see ``self.forward(x)``, by which many heads are entered.

    Args:
        model: whose modules, with itself.
        tell: called before each forward, with the name of the module and the module.
    """

    def __init__(self, model: nn.Module, tell: Callable[[str, nn.Module], None]) -> None:
        self._own = [(layer, vars(layer).get('forward')) for layer in model.modules()]
        for name, layer in model.named_modules():
            layer.forward = self._telling(partial(tell, name, layer), layer.forward)

    @staticmethod
    def _telling(tell: Callable[[], None], forward: Callable) -> Callable:
        @wraps(forward)
        def told(*args: Any, **kwargs: Any) -> Any:
            tell()
            return forward(*args, **kwargs)

        return told

    def remove(self) -> None:
        """Give each module the forward that it had."""
        for layer, own in self._own:
            del layer.forward
            if own is not None:
                layer.forward = own


def is_memory(layer: nn.Module) -> bool:
    """Whether the layer normalizes by what it, or another layer, found before."""
    return isinstance(layer, BaseNorm) and layer.remembers and layer.moves_statistics
