"""Replace SSN by SN of constant ratios: SparsestMax is needed in training only."""

import copy

import torch
from torch import nn

from normplug.norms import SN, SSN

from .description import names_of

__all__ = ['with_constant_ratios']


@torch.no_grad()
def with_constant_ratios(model: nn.Module) -> nn.Module:
    """Return a copy of ``model`` in evaluation mode, with an SN of the same ratios for each SSN.

    An exporter folds the softmax of constants, but leaves the sorting inside SparsestMax, some
    sixty nodes a layer, in the graph.
    """
    model = copy.deepcopy(model)
    for layer, names in names_of(model).items():
        if not isinstance(layer, SSN):
            continue
        twin = SN(
            layer.num_features,
            layer.eps,
            using_in=layer.using_in,
            using_bn=layer.using_bn,
            released_statistics=layer.released_statistics,
        )
        state, own = layer.state_dict(), twin.state_dict()
        state['mean_weight'], state['var_weight'] = (r.log() for r in layer.ratios())  # −inf for 0
        twin.to(layer.weight).load_state_dict({key: state[key] for key in own})
        for name in names:
            parent, _, last = name.rpartition('.')
            setattr(model.get_submodule(parent), last, twin)
    return model.eval()
