"""Run a forward without changing the model."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy

import torch
from torch import nn

from normplug.norms.cbn import CBN
from normplug.random_state import get_random_state, set_random_state

__all__ = ['undisturbed']


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Run forwards of ``model`` without gradients, then restore it.

    For backward passes, enable gradients inside, and put twins in the parameters' place
    first: ``grad`` of a parameter is not restored, but the parameters themselves are.
    Parameters, buffers, CBN's history and all random numbers are restored. Other state that a
    forward changes, such as a counter in a plain attribute, is not. Compiled models run uncompiled.
    """
    # Weights too: a momentum encoder changes in forward. The tensors themselves are kept, because a
    # forward may register buffers again.
    tensors = [
        (owner, name, tensor, tensor.detach().clone())
        for module in model.modules()
        for owner in (module._parameters, module._buffers)
        for name, tensor in owner.items()
        if tensor is not None
    ]
    # Entries are never changed.
    histories = [(m, copy(m.history)) for m in model.modules() if isinstance(m, CBN)]
    random_state = get_random_state()
    try:
        with torch.no_grad(), torch.compiler.set_stance('force_eager'):
            yield
    finally:
        set_random_state(random_state)
        for layer, history in histories:
            layer.history = history
        with torch.no_grad():
            for owner, name, tensor, value in tensors:
                owner[name] = tensor
                tensor.copy_(value)
