"""Watch norms with memory: of a new run it begins empty, and of a shared head it is refused."""

from collections import Counter
from functools import partial
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn

from normplug.checkpoint_file import few
from normplug.errors import UnsuitableModelError
from normplug.forward_hooks import HookOfOriginal
from normplug.hooks.of_runner import loss_scale
from normplug.models.wrappers import unwrapped
from normplug.norms import MABN, BaseNorm
from normplug.running import in_recomputation

__all__ = ['NormMemoryHook']


@HOOKS.register_module()
class NormMemoryHook(Hook):
    """Look after norms that normalize by more than a batch: BRN, MABN, CBN, PN, KN, EstBCN.

    A training that does not resume begins with empty windows of MABN: those of a checkpoint are the
    gradients of another task. Where AMP changes the scale of the loss, they follow (with one
    optimizer; each of several has its own scale).

    A training ends, after its first iteration, if such a norm runs more often in it than the part
    of the model around it, as in a head that is shared over levels: what it remembers would be of
    another level. Not meant are activation checkpointing, a part that is called several times as a
    whole, and a norm in evaluation mode.

    ``tools/train.py`` adds the hook to a model with such norms; elsewhere, add
    ``custom_hooks=[dict(type='NormMemoryHook')]``.

    Raises:
        UnsuitableModelError: names the layers, and says what to do. Nothing has been saved then.
    """

    priority = 'VERY_HIGH'  # before anything is saved

    def before_train(self, runner: Runner) -> None:
        """Empty MABN's windows in a new run, and watch the first iteration."""
        model = unwrapped(runner.model)
        self._with_gradients = [layer for layer in model.modules() if isinstance(layer, MABN)]
        if runner.iter == 0:
            for layer in self._with_gradients:
                layer.forget()
        self._calls: Counter[str] = Counter()
        self._handles = [
            layer.register_forward_pre_hook(HookOfOriginal(partial(self._count, name)))
            for name, layer in model.named_modules()
        ]

    def _count(self, name: str, layer: nn.Module, *unused: Any) -> None:
        rests = isinstance(layer, BaseNorm) and not layer.training
        if not (rests or in_recomputation()):
            self._calls[name] += 1

    def before_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Note the scale of the loss."""
        self._scale = self._loss_scale(runner)

    def _loss_scale(self, runner: Runner) -> Tensor | None:
        if not self._with_gradients:
            return None
        one = torch.ones((), device=self._with_gradients[0].weight.device)
        return loss_scale(runner.optim_wrapper, one)

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Follow the scale of the loss, and look at what has been counted, once."""
        if self._scale is not None:
            factor = self._loss_scale(runner) / self._scale
            for layer in self._with_gradients:
                layer.rescale_gradients(factor)
        if not self._handles:
            return
        for handle in self._handles:
            handle.remove()
        self._handles = []
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


def is_memory(layer: nn.Module) -> bool:
    """Whether the layer normalizes by what it, or another layer, found before."""
    return isinstance(layer, BaseNorm) and layer.remembers and layer.moves_statistics
