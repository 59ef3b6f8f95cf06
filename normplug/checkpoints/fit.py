"""Check that a converted checkpoint fills a model, before anything is loaded or written."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from normplug.norms import IBN, SN, SSN

from .report import Report
from .resnet import Architecture, architecture, is_resnet
from .source import CheckpointError, few
from .whitening import WHITENING

__all__ = ['check_fit', 'check_network', 'kind_in', 'norms_in']

# What a layer that is not told starts from by itself: a count of 0, a Gaussian's kurtosis (PN), the
# bounds of norm_cfg (BRN), its speed (EstBCN), empty windows (MABN).
_OPTIONAL = (
    '.num_batches_tracked',
    '.kurtosis',
    '.r_max',
    '.d_max',
    '.speed',
    '.square_window',
    '.gradient_window',
)
_KINDS = {'SN': SN, 'SSN': SSN, 'IBN': IBN, **WHITENING}


def kind_in(layer: nn.Module) -> str | None:
    """Return the kind of a layer of ours, synchronized or not; None if no file can become it."""
    return next((kind for kind, cls in _KINDS.items() if isinstance(layer, cls)), None)


def norms_in(model: nn.Module) -> dict[str, nn.Module]:
    """Return by name the layers that have a kind."""
    return {name: m for name, m in model.named_modules() if kind_in(m) is not None}


def check_network(found: Architecture | None, model: nn.Module, path: str, whose: str) -> None:
    """Raise CheckpointError if the file's ResNet is of another depth or type than ``model``."""
    state = model.state_dict()
    if found is None or not is_resnet(state):
        return
    own = architecture(state, whose)
    if not found.begins_with(own):
        raise CheckpointError(
            f'{path} is of a {found}, but {whose} is a {own}: correct the depth or type there, or '
            'name a checkpoint of that network'
        )


def check_fit(
    state: Mapping[str, Tensor], model: nn.Module, report: Report, whose: str
) -> list[str]:
    """Return the names in ``state`` that belong to layers which ``model`` does not have.

    Args:
        state: a converted checkpoint, with the names of ``model``.
        model: what it is for.
        report: of the conversion.
        whose: the config key of the model, for the message.

    Raises:
        CheckpointError: a tensor of the model is not filled, or a layer that both have differs.
    """
    own = model.state_dict()
    layers = {name.rpartition('.')[0] for name in own}
    extra = [name for name in state if name not in own]
    kinds = {
        'missing in the file': [
            name for name in own if name not in state and not name.endswith(_OPTIONAL)
        ],
        'of another shape': [
            f'{name} {tuple(state[name].shape)} (model: {tuple(value.shape)})'
            for name, value in own.items()
            if name in state and state[name].shape != value.shape
        ],
        'unknown to the model': [name for name in extra if name.rpartition('.')[0] in layers],
    }
    lines = [f'{len(names)} {kind}: {few(names)}' for kind, names in kinds.items() if names]
    if lines:
        norms = ', '.join(report.norms)
        raise CheckpointError(
            '\n  '.join(
                [
                    f'{report.path} does not fit {whose}:',
                    *lines,
                    f'the file has layers of {norms}; norm_cfg and depth must be the same',
                    *report.notes,
                ]
            )
        )
    return extra
