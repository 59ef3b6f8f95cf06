"""What else in a model refers to a layer or to its tensors, besides the names that it has."""

from __future__ import annotations

import gc
from collections import defaultdict, deque
from collections.abc import Hashable
from functools import partial
from itertools import chain
from types import MethodType

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

__all__ = ['References']

# Looked into for the layers and tensors inside; of other objects nothing is known.
_CONTAINERS = (list, tuple, dict, set, frozenset, deque, partial, MethodType)


class References:
    """The layers and tensors that the modules of ``model`` keep as attributes.

    Not the submodules: those are the layer's names, of which it may have several. A module that is
    kept in a list only is part of that list.
    """

    def __init__(self, model: nn.Module) -> None:
        self._found: dict[Hashable, list[tuple[nn.Module, str]]] = defaultdict(list)
        self._registered = set(model.modules())
        for name, module in model.named_modules():
            for attribute, value in vars(module).items():
                if attribute in ('_parameters', '_buffers'):
                    for own, tensor in value.items():
                        self._add(tensor, module, f'{name}.{own}')
                elif attribute != '_modules':
                    self._add(value, module, f'{name}.{attribute}')

    def _add(self, value: object, holder: nn.Module, where: str) -> None:
        seen, waiting = set(), [value]
        while waiting:
            one = waiting.pop()
            if id(one) in seen:
                continue
            seen.add(id(one))
            if isinstance(one, (Tensor, nn.Module)):
                self._found[_identity(one)].append((holder, where.lstrip('.')))
            if isinstance(one, nn.Module) and one not in self._registered:
                waiting.append(vars(one))
            elif isinstance(one, _CONTAINERS):
                waiting += gc.get_referents(one)

    def beside_names(self, layer: nn.Module) -> str:
        """Where ``layer`` is kept or a tensor of it is shared, as the end of a sentence, or ''."""
        where = self._elsewhere(layer, layer)
        if where:
            return f'is kept in {where} too, which would go on using it'
        for name, tensor in chain(layer.named_parameters(), layer.named_buffers()):
            where = self._elsewhere(tensor, layer)
            if where:
                return f'shares its {name} with {where}, which the new layer would not'
        return ''

    def _elsewhere(self, one: Tensor | nn.Module, layer: nn.Module) -> str:
        found = self._found.get(_identity(one), ())
        return next((where for holder, where in found if holder is not layer), '')


def _identity(one: Tensor | nn.Module) -> Hashable:
    """Equal for tensors on the same memory, as ``.data`` and views are."""
    if isinstance(one, nn.Module) or one.layout is not torch.strided or is_lazy(one):
        return id(one)
    return one.untyped_storage()._cdata, 'storage'
