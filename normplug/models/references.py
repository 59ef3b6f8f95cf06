"""Find references to a layer or its tensors in a model, besides its names."""

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

# Containers that are searched for layers and tensors; other objects are not searched.
_CONTAINERS = (list, tuple, dict, set, frozenset, deque, partial, MethodType)


class References:
    """Return the layers and tensors that the modules of ``model`` keep as plain attributes.

    Submodules are not included: they are the names of a layer, which may have several. A module
    that is kept only in a list counts as part of that list.
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
        """Return where else ``layer`` or its tensors are kept, as the end of a sentence, or ''."""
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
    """Return a key that is equal for tensors on the same memory, such as ``.data`` and views."""
    if isinstance(one, nn.Module) or one.layout is not torch.strided or is_lazy(one):
        return id(one)
    return one.untyped_storage()._cdata, 'storage'
