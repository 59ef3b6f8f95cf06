"""Find which tensors go from a convolution to a norm, by running the model.

The order in which a model declares its layers does not tell: a convolution may be shared, or its
output may be read twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from normplug.forward_hooks import input_of
from normplug.norms import BaseNorm

__all__ = ['CONVOLUTIONS', 'Dataflow', 'record']

CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)


@dataclass
class _Output:
    """The output of one call of a convolution; held, so that its id is not used again."""

    conv: nn.Module
    tensor: Tensor
    norms: list[nn.Module] = field(default_factory=list)
    other_readers: list[str] = field(default_factory=list)


@dataclass
class Dataflow:
    """The observed dataflow; a layer that did not run is in none of the fields.

    Attributes:
        shapes: the shapes of each norm's inputs.
        sources: for each call of each norm, the convolution whose output it took, or None.
        outputs: the readers of each output of each convolution.
        weight_readers: the operators that read a convolution's weight outside of its call.
    """

    shapes: dict[nn.Module, list[torch.Size]] = field(default_factory=dict)
    sources: dict[nn.Module, list[nn.Module | None]] = field(default_factory=dict)
    outputs: dict[nn.Module, list[_Output]] = field(default_factory=dict)
    weight_readers: dict[nn.Module, list[str]] = field(default_factory=dict)


def record(model: nn.Module, run: Callable[[], Any]) -> tuple[Dataflow, Any]:
    """Call ``run``, which calls ``model``; return what was seen and what it returned."""
    recorder = _Recorder(model)
    with recorder:
        results = run()
    recorder.remove_hooks()
    for leaf in tree_leaves(results):
        if id(leaf) in recorder.made:
            recorder.made[id(leaf)].other_readers.append('an output of the model')
    for output in recorder.made.values():
        recorder.flow.outputs.setdefault(output.conv, []).append(output)
    return recorder.flow, results


class _Recorder(TorchDispatchMode):
    """Observes every operator, and by hooks in which convolution or norm it runs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.flow = Dataflow()
        self.made: dict[int, _Output] = {}
        self._running: list[tuple[nn.Module, Tensor]] = []  # and what each was given
        self._convs: dict[int, nn.Module] = {}  # by the identity of the weight
        self._hooks = []
        for layer in model.modules():
            if isinstance(layer, (*CONVOLUTIONS, _BatchNorm, BaseNorm)):
                self._hooks.append(layer.register_forward_pre_hook(self._enter, with_kwargs=True))
                self._hooks.append(layer.register_forward_hook(self._leave))
            if isinstance(layer, CONVOLUTIONS):
                self._convs[id(layer.weight)] = layer

    def remove_hooks(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def _enter(self, layer: nn.Module, args: tuple, kwargs: dict) -> None:
        x = input_of(args, kwargs)
        self._running.append((layer, x))
        if isinstance(layer, CONVOLUTIONS):
            return
        source = self.made.get(id(x))
        if source is not None:
            source.norms.append(layer)
        self.flow.sources.setdefault(layer, []).append(source and source.conv)
        self.flow.shapes.setdefault(layer, []).append(x.shape)

    def _leave(self, layer: nn.Module, args: tuple, y: Tensor) -> None:
        self._running.pop()
        if isinstance(layer, CONVOLUTIONS):
            self.made[id(y)] = _Output(layer, y)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        layer, given = self._running[-1] if self._running else (None, None)
        for leaf in tree_leaves((args, kwargs or {})):
            if not isinstance(leaf, Tensor):
                continue
            output = self.made.get(id(leaf))
            if output is not None and not (leaf is given and not isinstance(layer, CONVOLUTIONS)):
                output.other_readers.append(str(func))
            conv = self._convs.get(id(leaf))
            if conv is not None and conv is not layer:
                self.flow.weight_readers.setdefault(conv, []).append(str(func))
        return func(*args, **(kwargs or {}))
