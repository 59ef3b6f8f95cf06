"""Find where in a forward pass the first NaN or Inf appears."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

__all__ = ['Search', 'all_finite']


def all_finite(value: Any) -> bool:
    """Return whether all tensors in ``value`` (nested like mm's data and outputs) are finite."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in _tensors(value))


class Search:
    """Finds the module of ``model`` in which the first NaN or Inf of a forward pass appears.

    That is the first module that gets finite inputs and returns NaN or Inf, in the order of
    execution, inner modules before the outer ones.

    Args:
        model: the unwrapped model, whose own forward returns a dict of losses.
        exempt: names of buffers that contain such values on purpose.
    """

    def __init__(self, model: nn.Module, exempt: frozenset[str] = frozenset()) -> None:
        self._model = model
        self._exempt = exempt
        self._spoiled: list[str] = []
        self._data_finite = True
        self._origin: str | None = None
        self._ended = 0  # modules that have returned, until the origin is found
        self._last_finite = ''  # the one that returned last, without a fault
        self._bad_losses: list[str] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch one forward pass, by hooks on all modules."""
        self._spoiled = [
            f'{name}.{key}'.removeprefix('.')
            for name, module in self._model.named_modules()
            for key, value in _own_state(module)
            if not all_finite(value) and f'{name}.{key}'.removeprefix('.') not in self._exempt
        ]
        handles = [
            module.register_forward_hook(self._watch(name), with_kwargs=True)
            for name, module in self._model.named_modules()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _watch(self, name: str):
        def after_forward(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
            if self._origin is not None:
                return
            self._ended += 1
            inputs_finite = all_finite((args, kwargs))
            if module is self._model:
                self._data_finite = inputs_finite
                if isinstance(output, dict):
                    self._bad_losses = [key for key in output if not all_finite(output[key])]
            elif all_finite(output):
                self._last_finite = name
            elif inputs_finite:
                self._origin = self._describe(name, module, output)

        return after_forward

    def _describe(self, name: str, module: nn.Module, output: Any) -> str:
        tensors = list(_tensors(output))
        bad = sum(int((~torch.isfinite(tensor)).sum()) for tensor in tensors)
        total = sum(tensor.numel() for tensor in tensors)
        nan = any(bool(torch.isnan(tensor).any()) for tensor in tensors)
        text = (
            f'{name} ({type(module).__name__}): its inputs are finite, and {bad} of {total} values '
            f'of its output are {"NaN" if nan else "infinite"}'
        )
        if list(module.children()):
            text += f', in its own code after {self._last_finite or "nothing"}'
        return text

    def result(self, steps: int) -> tuple[int, str]:
        """Return when and where the first NaN or Inf appeared.

        Args:
            steps: number of iterations before this one.

        Returns:
            The number of modules that had returned before it, to compare ranks, and a text.
        """
        if self._spoiled:
            few = ', '.join(self._spoiled[:3]) + ', ...' * (len(self._spoiled) > 3)
            cause = f'the step of iteration {steps} left it there' if steps else 'from the start'
            shown = f', and shows first in {self._origin}' if self._origin else ''
            return 0, f'the weights: NaN or Inf is in {few} ({cause}){shown}'
        if not self._data_finite:
            return 0, 'the input: the batch already has NaN or Inf when the model gets it'
        if self._origin is not None:
            return self._ended, self._origin
        if self._bad_losses:
            after = f' after {self._last_finite}' if self._last_finite else ''
            return self._ended, (
                f'the computation of {", ".join(self._bad_losses)}{after}: every module returned '
                'finite values'
            )
        return self._ended, 'an unknown place: the repeated forward pass was finite'


def _own_state(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(recurse=False)
    if not module.training:  # a training layer updates its buffers from bad values too
        yield from module.named_buffers(recurse=False)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if value.is_floating_point() or value.is_complex():
            yield value.detach()
    elif isinstance(value, BaseDataElement):
        yield from _tensors(dict(value.all_items()))
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
