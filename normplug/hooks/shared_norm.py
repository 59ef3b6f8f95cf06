"""Refuse a norm with memory in a head that is shared over levels."""

from collections import Counter
from functools import partial
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn

from normplug.checkpoint_file import few
from normplug.errors import UnsuitableModelError
from normplug.forward_hooks import HookOfOriginal
from normplug.models.wrappers import unwrapped
from normplug.norms import BaseNorm
from normplug.running import in_recomputation

__all__ = ['SharedNormHook']


@HOOKS.register_module()
class SharedNormHook(Hook):
    """End a training, after its first iteration, if a norm with memory runs several times in it.

    Such a norm normalizes by batches that it saw before, or by what other layers found: BRN, MABN,
    CBN, PN, KN, EstBCN. In a head that is shared over levels those are of another level. All
    calls of a layer count that are more than those of the layer that ran least in the same model of
    mmengine: an algorithm that gives a whole model, or the student in it, two batches is not meant.

    ``tools/train.py`` adds the hook to a model with such norms; elsewhere, add
    ``custom_hooks=[dict(type='SharedNormHook')]``.

    Raises:
        UnsuitableModelError: names the layers, and says what to do. Nothing has been saved then.
    """

    priority = 'VERY_HIGH'  # before anything is saved

    def before_train(self, runner: Runner) -> None:
        """Watch the first iteration of each run of the program."""
        model = unwrapped(runner.model)
        self._calls: Counter[str] = Counter()
        self._models = [name for name, m in model.named_modules() if isinstance(m, BaseModel)]
        self._handles = [
            layer.register_forward_pre_hook(HookOfOriginal(partial(self._count, name)))
            for name, layer in model.named_modules()
            if next(layer.parameters(recurse=False), None) is not None or is_memory(layer)
        ]

    def _count(self, name: str, *unused: Any) -> None:
        if not in_recomputation():
            self._calls[name] += 1

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Look at what has been counted, once."""
        if not self._handles:
            return
        for handle in self._handles:
            handle.remove()
        self._handles = []
        layers = dict(unwrapped(runner.model).named_modules())
        least: dict[str, int] = {}
        for name, number in self._calls.items():
            owner = self._owner(name)
            least[owner] = min(number, least.get(owner, number))
        shared = {
            name: f'{name} ({number} times)'
            for name, number in self._calls.items()
            if number > least[self._owner(name)] and is_memory(layers[name])
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

    def _owner(self, name: str) -> str:
        """The name of the innermost model of mmengine around a layer."""
        around = [m for m in self._models if m == '' or name.startswith(f'{m}.')]
        return max(around, key=len, default='')


def is_memory(layer: nn.Module) -> bool:
    """Whether the layer normalizes by what it, or another layer, found before."""
    return isinstance(layer, BaseNorm) and layer.remembers and layer.moves_statistics
