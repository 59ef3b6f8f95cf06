"""Names of the tensors of whole networks: ours (those of mm) and the released ones."""

from __future__ import annotations

import re
from collections.abc import Iterable

from .source import CheckpointError

__all__ = [
    'CLASSIFIER',
    'LAYOUTS',
    'bare_names',
    'default_layout',
    'is_classifier',
    'is_ibn_a',
    'is_released',
    'may_whiten',
    'placed',
]

# What the names of the result are for.
LAYOUTS = {
    'backbone': 'a bare ResNet, as init_cfg of a backbone takes it',
    'classifier': "mmpretrain's classifier: backbone.* and head.fc.*",
    'model': 'any model: every tensor keeps its name',
    'released': 'the released code: its names and shapes',
}
CLASSIFIER = ('fc.weight', 'fc.bias')
_BACKBONE, _HEAD, _FC = 'backbone.', 'head.', 'fc.'
_RELEASED_SN = re.compile(r'(?<![^.])s[nw](\d\.)')
_OUR_SN = re.compile(r'(?<![^.])bn(\d\.)')
_ABBREVIATIONS = {'SN': 'sn', 'SSN': 'sn', 'hard-SN': 'sn', 'SW': 'sw'}
# Where the released code can have SW and IterNorm.
_WHITENING = {
    'SW': re.compile(r'bn1|layer[1-4]\.\d*[13579]\.bn[12]'),
    'IterNorm': re.compile(r'bn1'),
}
# Where IBN-Net-a has its layers: the first norm of each block, save in the last stage.
_IBN_A = re.compile(r'(.*\.)?layer[123]\.\d+\.bn1')
_RELEASED = re.compile(r'(.*\.)?(s[nw]\d\..*|bn\d\.IN\.\w+|(mean|var)_fixed)')


def default_layout(state: Iterable[str]) -> str:
    """Return the default layout to convert to."""
    return 'model' if any(name.startswith(_BACKBONE) for name in state) else 'backbone'


def is_released(state: Iterable[str]) -> bool:
    """Return whether some names occur only in the released code."""
    return any(_RELEASED.fullmatch(name) for name in state)


def is_ibn_a(layer: str) -> bool:
    """Return whether IBN-Net-a has an IBN for the norm layer of this name."""
    return _IBN_A.fullmatch(layer) is not None


def may_whiten(layer: str, kind: str) -> bool:
    """Return whether released SW and IterNorm networks can have the kind at the norm's name."""
    return kind not in _WHITENING or _WHITENING[kind].fullmatch(layer) is not None


def is_classifier(bare: str) -> bool:
    """Return whether a bare name is of the classifier on top of the backbone."""
    return bare.startswith(_FC)


def bare_names(state: Iterable[str], to: str, path: str) -> dict[str, str]:
    """Return bare name → name in ``state``, for what has a place in the layout ``to``.

    Bare names are mm's names in a backbone, and ``fc.*``. For the layout 'model' all names stay.

    Raises:
        CheckpointError: two tensors get the same name.
    """
    if to == 'model':
        return {name: name for name in state}
    state = list(state)
    prefixed = default_layout(state) == 'model'
    found = {}
    for name in state:
        if prefixed and name.startswith(_BACKBONE):
            bare = name[len(_BACKBONE) :]
        elif prefixed and name.startswith(_HEAD + _FC):
            bare = name[len(_HEAD) :]
        elif prefixed:
            continue
        else:
            bare = name
        bare = _RELEASED_SN.sub(r'bn\1', bare)
        if bare.startswith(_FC) and to == 'backbone':
            continue
        if bare in found:
            raise CheckpointError(f'{path}: {found[bare]} and {name} are both {bare} in mm')
        found[bare] = name
    return found


def placed(bare: str, to: str, kind: str | None) -> str:
    """Return a bare name as the layout ``to`` has it; ``kind`` is that of its norm layer."""
    if to == 'classifier':
        return (_HEAD if is_classifier(bare) else _BACKBONE) + bare
    if to == 'released' and kind in _ABBREVIATIONS:
        return _OUR_SN.sub(rf'{_ABBREVIATIONS[kind]}\1', bare)
    return bare
