"""A forward that leaves no traces."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from normplug.random_state import get_random_state, set_random_state

__all__ = ['undisturbed']


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Run forwards of ``model`` without gradients, and leave it as it was.

    That is its parameters, its buffers, and all random numbers; what a forward keeps elsewhere,
    such as a counter in a plain attribute, stays changed. Compiled models run uncompiled.
    """
    # Weights too: a momentum encoder moves in forward. And the very tensors, for buffers that are
    # registered anew there.
    tensors = [
        (owner, name, tensor, tensor.detach().clone())
        for module in model.modules()
        for owner in (module._parameters, module._buffers)
        for name, tensor in owner.items()
        if tensor is not None
    ]
    random_state = get_random_state()
    try:
        with torch.no_grad(), torch.compiler.set_stance('force_eager'):
            yield
    finally:
        set_random_state(random_state)
        with torch.no_grad():
            for owner, name, tensor, value in tensors:
                owner[name] = tensor
                tensor.copy_(value)
