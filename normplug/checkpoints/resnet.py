"""Recognize the ResNet of a state dict by its names (those of mm), and what it lacks."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from .source import CheckpointError, few

__all__ = ['Architecture', 'architecture', 'is_resnet', 'is_resnet_key']

_DEPTHS = {
    ('basic', (2, 2, 2, 2)): 18,
    ('basic', (3, 4, 6, 3)): 34,
    ('bottleneck', (3, 4, 6, 3)): 50,
    ('bottleneck', (3, 4, 23, 3)): 101,
    ('bottleneck', (3, 8, 36, 3)): 152,
}
# The latter two are those of mm's ResNetV1c and V1d; mmpretrain's is of ConvModules.
_STEMS = {'conv1.weight', 'stem.0.weight', 'stem.0.conv.weight'}
_FIRST_CONV = 'layer1.0.conv1.weight'
_IN_BLOCK = re.compile(r'layer(\d+)\.(\d+)\.((?:conv|bn)\d|downsample)\.')
_PLACE = re.compile(r'(layer\d+\.\d+\.(conv\d|bn\d|downsample\.\d+|IN)|conv1|bn1|stem\.\d+)\..+')


@dataclass(frozen=True)
class Architecture:
    """A ResNet's blocks.

    Attributes:
        kind: 'basic' (two convolutions a block) or 'bottleneck' (three).
        blocks: their number in each stage.
        groups: of the 3x3 convolutions; more than one in a ResNeXt.
    """

    kind: str
    blocks: tuple[int, ...]
    groups: int = 1

    def __str__(self) -> str:
        """Its common name, as ``ResNet-50`` or ``ResNeXt-50 of 32 groups``."""
        name = 'ResNet' if self.groups == 1 else 'ResNeXt'
        depth = _DEPTHS.get((self.kind, self.blocks))
        if depth is not None:
            return f'{name}-{depth}' + f' of {self.groups} groups' * (self.groups > 1)
        grouped = f' in {self.groups} groups' * (self.groups > 1)
        return f'{name} of {"-".join(map(str, self.blocks))} {self.kind} blocks{grouped}'

    def begins_with(self, other: Architecture) -> bool:
        """Whether ``other`` is this ResNet, or its first stages."""
        return (self.kind, self.groups) == (other.kind, other.groups) and (
            self.blocks[: len(other.blocks)] == other.blocks
        )


def is_resnet(names: Iterable[str]) -> bool:
    """Whether the names have a ResNet's stem and first block; ours or released."""
    names = set(names)
    return _FIRST_CONV in names and not names.isdisjoint(_STEMS)


def is_resnet_key(name: str) -> bool:
    """Whether a ResNet without extras has the layer that the tensor is of."""
    return _PLACE.fullmatch(name) is not None


def architecture(state: Mapping[str, Tensor], whose: str) -> Architecture:
    """Recognize the ResNet by the names (without prefix) and shapes of its tensors.

    Args:
        state: tensors by mm's names.
        whose: the file or config key, for the message.

    Raises:
        CheckpointError: it is none, or a convolution or norm of it is missing.
    """
    names = set(state)
    if not is_resnet(names):
        raise CheckpointError(
            f'{whose} is not of a ResNet with names as in mm or the released classification code: '
            f'it has no {" or ".join(sorted(_STEMS))}, or no {_FIRST_CONV}, but '
            f'{few(sorted(names))}. Detectron-like codes name their layers otherwise; their '
            'checkpoints cannot be converted'
        )
    found = defaultdict(set)
    for name in names:
        if place := _IN_BLOCK.match(name):
            found[int(place[1]), int(place[2])].add(place[3])
    blocks = [0] * max(stage for stage, _ in found)
    for stage, index in found:
        blocks[stage - 1] = max(blocks[stage - 1], index + 1)
    kind = 'bottleneck' if 'conv3' in found[1, 0] else 'basic'
    lacking = [
        f'layer{stage}.{index}.{layer}'
        for stage, number in enumerate(blocks, 1)
        for index in range(number)
        for layer in _layers(kind, stage, index)
        if layer not in found[stage, index]
    ]
    if 'conv1.weight' in names and not any(name.startswith('bn1.') for name in names):
        lacking.insert(0, 'bn1')
    result = Architecture(kind, tuple(blocks), _groups(state))
    if lacking:
        raise CheckpointError(
            f'{whose} looks like a {result}, but {len(lacking)} of its layers are missing: '
            f'{few(lacking)}. The file is incomplete, or of another kind of network'
        )
    return result


def _groups(state: Mapping[str, Tensor]) -> int:
    # A convolution's weight is (out, in / groups, kh, kw), and conv1 gives what conv2 takes.
    first, second = (state.get(f'layer1.0.conv{i}.weight') for i in (1, 2))
    if first is None or second is None or first.dim() < 2 or second.dim() < 2:
        return 1
    return max(len(first) // max(second.shape[1], 1), 1)


def _layers(kind: str, stage: int, index: int) -> list[str]:
    number = 3 if kind == 'bottleneck' else 2
    layers = [f'{part}{i}' for i in range(1, number + 1) for part in ('conv', 'bn')]
    # The first block changes the number of channels, save in stage 1 of basic blocks.
    with_shortcut = index == 0 and (stage > 1 or kind == 'bottleneck')
    return layers + ['downsample'] * with_shortcut
