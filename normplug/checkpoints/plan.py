"""Decide what each norm layer of a file becomes, and check that this is possible."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from . import names
from .layers import HARD_SN, Entries, kind_of
from .source import CheckpointError, few

__all__ = ['SWITCHABLE', 'check_plan', 'check_releasable', 'layer_of', 'planned']

SWITCHABLE = {'SN', 'SSN', HARD_SN}
# Layers that IBN-Net-c and d have, which were not released.
_UNRELEASED = re.compile(r'.*\.(bn\d|IN)\.(IN|BN)\.\w+')


def planned(name: str, entries: Entries, norm: str | None, kinds: Mapping[str, str]) -> str:
    """Return the normalizer that a layer becomes."""
    kind = kind_of(entries)
    if norm is None:
        kind = kinds.get(name, kind)
    elif norm == 'IBN':
        kind = 'IBN' if kind == 'BN' and names.is_ibn_a(name) else kind
    else:
        kind = norm
    return kind


def check_plan(
    plan: dict[str, str], layers: dict[str, Entries], norm: str | None, path: str, has_in: bool
) -> None:
    """Raise CheckpointError if there is nothing to convert, or nothing that can become ``norm``.

    With ``has_in`` the network has instance norms like IBN-Net-b, and so a layout to convert.
    """
    found = sorted({kind_of(entries) for entries in layers.values()})
    if not layers:
        raise CheckpointError(
            f'{path} has no layer of BN, SN, SSN, IBN, SW or IterNorm, and no released GW: there '
            'is nothing to convert'
        )
    if norm is not None and norm not in plan.values():
        raise CheckpointError(
            f'{path} has no layer that could become {norm}; its norms: {", ".join(found)}'
        )
    if norm is None and set(plan.values()) <= {'BIN', 'BCN'}:
        raise CheckpointError(
            f'{path} has {" and ".join(found)} alone, which needs no conversion: load it '
            "with type='Pretrained' or load_from"
        )
    if set(plan.values()) == {'BN'} and norm is None and not has_in:
        raise CheckpointError(
            f'{path} has batch norm alone, which is none of the released norms: say what it is to '
            'become, with --norm. A network with batch norm, PN, GhostBN or PortableSyncBN, which '
            "have the same tensors, loads it with type='Pretrained' or load_from"
        )


def check_releasable(
    state: dict[str, Tensor], layers: dict[str, Entries], plan: dict[str, str], path: str
) -> None:
    """Raise CheckpointError if no released network has the norms of ``plan``, where they are."""
    kinds = set(plan.values())
    if (kinds & SWITCHABLE and len(kinds) > 1) or len(kinds - {'BN'}) > 1:
        raise CheckpointError(
            f'{path} has norms of several kinds ({", ".join(sorted(kinds))}), which no released '
            'network has'
        )
    unreleased = [
        name
        for name in state
        if _UNRELEASED.fullmatch(name) and plan.get(layer_of(name, layers)) != 'IBN'
    ]
    if 'IBN' in kinds:
        unreleased += [name for name in plan if names.is_ibn_a(name) != (plan[name] == 'IBN')]
    unreleased += [n for n, kind in plan.items() if not names.may_whiten(n, kind)]
    if unreleased or any(name.startswith('stem.') for name in state):
        raise CheckpointError(
            f'{path}: the released code has no place for {few(unreleased or ["stem.*"])}; it is '
            'ResNet with the plain stem, IBN-Net-a and b, ResNet with IterNorm in its stem, and '
            'with SW in its stem and in every second block'
        )


def layer_of(name: str, layers: dict[str, Entries]) -> str | None:
    """Return the norm layer that a tensor belongs to; released IBN has one level more."""
    above = name.rpartition('.')[0]
    return next((n for n in (above, above.rpartition('.')[0]) if n in layers), None)
