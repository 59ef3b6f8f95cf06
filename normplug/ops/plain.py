"""Tensors that are memory, and nothing else."""

import torch
from torch import Tensor
from torch.autograd import forward_ad

__all__ = ['is_plain', 'is_transformed', 'on_gpu']


def is_plain(x: Tensor) -> bool:
    """Whether x may be cut, written to, and given to compiled code.

    Not where somebody else sees to the operators, or to what they return: a compiler that traces,
    a subclass of Tensor, a dispatch mode (fake tensors, selective checkpointing), vmap, autograd.
    """
    return (
        type(x) in (Tensor, torch.nn.Parameter)
        and not torch.compiler.is_compiling()
        and torch._C._len_torch_dispatch_stack() == 0
        and not torch._C._dispatch_tls_is_dispatch_key_included('VmapMode')
        and not is_transformed()
        and not (x.requires_grad and torch.is_grad_enabled())
    )


def is_transformed() -> bool:
    """Whether a transform of ``torch.func``, or forward-mode differentiation, is under way.

    Dynamo, which sees a stack of its own, is none.
    """
    return not torch.compiler.is_compiling() and (
        torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0
    )


def on_gpu(x: Tensor) -> bool:
    """Whether code for x is Triton's."""
    return x.is_cuda
