"""Estimate the size of a checkpoint before the first is written."""

from __future__ import annotations

from torch import nn

__all__ = ['checkpoint_bytes']

# Tensors that the optimizer keeps for each parameter; two for any other, as most have.
_STATES = {'SGD': 0, 'Adagrad': 1, 'RMSprop': 1, 'Lion': 1}


def checkpoint_bytes(model: nn.Module, optimizer: dict) -> int:
    """Estimate the size of a checkpoint: weights, buffers and the optimizer's state.

    The state is taken as so many tensors for each trainable parameter: SGD none, and one more with
    momentum; Adagrad, RMSprop and Lion one; every other two, as Adam, and one more with amsgrad.

    Args:
        model: the model.
        optimizer: the optimizer's ``type`` (its bare name) and options, as in a config.
    """
    states = _STATES.get(optimizer.get('type'), 2)
    states += bool(optimizer.get('momentum')) + bool(optimizer.get('amsgrad'))
    tensors = [*model.parameters(), *model.buffers()]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return sum(t.nbytes for t in tensors) + states * sum(t.nbytes for t in trained)
