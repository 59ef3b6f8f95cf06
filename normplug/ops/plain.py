"""Tensors that are memory, and nothing else."""

import torch
from torch import Tensor

__all__ = ['is_plain']


def is_plain(x: Tensor) -> bool:
    """Whether x may be cut, written to, and given to compiled code.

    Not where somebody else sees to the operators, or to what they return: a compiler that traces,
    a subclass of Tensor, a dispatch mode (fake tensors, selective checkpointing), vmap.
    """
    return (
        type(x) in (Tensor, torch.nn.Parameter)
        and not torch.compiler.is_compiling()
        and torch._C._len_torch_dispatch_stack() == 0
        and not torch._C._dispatch_tls_is_dispatch_key_included('VmapMode')
    )
