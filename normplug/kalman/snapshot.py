"""A forward that leaves no traces."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from normplug.resume.random_state import get_random_state, set_random_state

__all__ = ['undisturbed']


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Run forwards of ``model`` without gradients; buffers and random numbers are as before then.

    Compiled models run uncompiled.
    """
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    random_state = get_random_state()
    try:
        with torch.no_grad(), torch.compiler.set_stance('force_eager'):
            yield
    finally:
        set_random_state(random_state)
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                if name in buffers:
                    buffer.copy_(buffers[name])
