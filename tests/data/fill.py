"""Deterministic weights for any state_dict, from each entry's name and shape alone.

``filled(name, shape)`` gives the same float32 tensor on every machine, so that a golden
file needs to hold only what a network computed, not its weights. The value drawn depends
on the entry's own (original) name: rename the keys after filling, never before.
"""

import zlib

import torch


def filled(name: str, shape: tuple) -> torch.Tensor:
    """Return the tensor that the golden files used for the entry ``name`` of ``shape``."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    leaf = name.rsplit('.', 1)[-1]
    if leaf == 'num_batches_tracked':
        return torch.zeros(shape, dtype=torch.long)
    if leaf == 'running_var':
        value = 1 + 0.2 * torch.tanh(noise)
    elif leaf == 'running_mean':
        value = 0.1 * noise
    elif leaf in ('mean_weight', 'var_weight'):  # SN / SSN importance logits
        value = 1 + 0.5 * noise
    elif leaf in ('radius', 'mean_fixed', 'var_fixed'):
        value = torch.zeros(shape, dtype=torch.float64)
    elif leaf == 'bias':
        value = 0.1 * noise
    elif sum(size > 1 for size in shape) <= 1:  # a norm's weight: (C,) or (1, C, 1, 1)
        value = 1 + 0.1 * noise
    else:  # convolution or linear weight, He-scaled by fan-in
        fan_in = 1
        for size in shape[1:]:
            fan_in *= size
        value = noise * (2 / fan_in) ** 0.5
    return value.float()


def filled_like(state_dict: dict) -> dict:
    """Fill every entry of ``state_dict`` by its name and shape."""
    return {name: filled(name, tuple(t.shape)).to(t.dtype) for name, t in state_dict.items()}
