"""Check before the first batch that a model calls its norm layers with arguments they take."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections import defaultdict
from collections.abc import Callable
from functools import lru_cache

from torch import nn

from normplug.norms import BaseNorm

__all__ = ['check_calls', 'refused_arguments']


def check_calls(model: nn.Module) -> None:
    """Raise ``ValueError`` if ``model`` calls a norm of this package with arguments that fail.

    ConvNeXt's blocks call theirs as ``self.norm(x, data_format=...)``: it takes one norm only.
    """
    for name, parent in model.named_modules():
        for own, layer in parent.named_children():
            if isinstance(layer, BaseNorm) and (refused := refused_arguments(parent, own, layer)):
                kind = type(layer).__name__
                raise ValueError(
                    f"norm_cfg=dict(type='{kind}'): {type(parent).__name__} calls its {own} "
                    f'({name}.{own}) with {refused}, which {kind} does not take: leave out this '
                    "norm_cfg, and place norms at the part's other layers with type='NormPlacement'"
                )


def refused_arguments(parent: nn.Module, own: str, layer: nn.Module) -> str:
    """Return what ``layer`` does not take, if every call ``self.<own>(...)`` in ``parent`` has it.

    Calls that the source does not show in this form are assumed to fit.
    """
    refused = [_refused(layer, *call) for call in _calls(type(parent)).get(own, ())]
    return refused[0] if refused and all(refused) else ''


def _refused(layer: nn.Module, positional: int, keywords: tuple[str, ...]) -> str:
    try:
        inspect.signature(layer.forward).bind(*[None] * positional, **dict.fromkeys(keywords))
    except TypeError:
        return ', '.join(f'{key}=...' for key in keywords) or f'{positional} arguments'
    return ''


@lru_cache(1024)
def _calls(cls: type) -> dict[str, list[tuple[int, tuple[str, ...]]]]:
    """Return, by attribute, the number of positional arguments and the keywords of each call."""
    found = defaultdict(list)
    for _, function in inspect.getmembers(cls, inspect.isfunction):
        if (function.__module__ or '').startswith('torch.'):  # None: made by torch.fx
            continue
        for node in ast.walk(_parsed(function)):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == 'self'
            ):
                unpacked = any(isinstance(arg, ast.Starred) for arg in node.args)
                keywords = [keyword.arg for keyword in node.keywords]
                known = not unpacked and None not in keywords
                call = (len(node.args), tuple(keywords)) if known else (1, ())
                found[node.func.attr].append(call)
    return found


@lru_cache(8192)
def _parsed(function: Callable) -> ast.AST:
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, SyntaxError, TypeError):
        return ast.Module([], [])
