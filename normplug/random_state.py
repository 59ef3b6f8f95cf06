"""The state of every global random number generator of the process, as tensors and numbers.

Nothing else, so that it loads with ``weights_only=True`` whatever is on the allow-list.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

__all__ = ['get_random_state', 'seed_of', 'set_random_state']


def seed_of(seed: int, rank: int) -> int:
    """Return the seed of a rank, from that of a training; every generator takes it.

    numpy's takes 32 bits; a training without a seed of its own draws one of 31.
    """
    return (seed * 1009 + rank) % 2**32


def get_random_state(cuda: bool = True) -> dict[str, Any]:
    """Return the state of torch, numpy and python.

    Args:
        cuda: with the generators of all visible CUDA devices.

    Returns:
        ``torch``, a uint8 tensor; ``cuda``, a list of one for each device; ``numpy`` and
        ``python``, a list each of what the library's own function returns, arrays as int64 tensors.
    """
    # numpy: name, 624 words of 32 bits, position, and a gauss kept for later
    name, words, *rest = np.random.get_state()
    version, python_words, gauss = random.getstate()
    return {
        'torch': torch.get_rng_state(),
        'cuda': torch.cuda.get_rng_state_all() if cuda and torch.cuda.is_available() else [],
        'numpy': [name, torch.from_numpy(words.astype(np.int64)), *rest],
        'python': [version, torch.tensor(python_words), gauss],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Bring all generators to ``state``, on whatever device its tensors are.

    Raises:
        ValueError: it holds CUDA states, but of another number of devices than there are.
    """
    if state['cuda']:
        if len(state['cuda']) != torch.cuda.device_count():
            raise ValueError(
                f'random states of {len(state["cuda"])} CUDA devices, but '
                f'{torch.cuda.device_count()} are visible'
            )
        torch.cuda.set_rng_state_all([device.cpu() for device in state['cuda']])
    torch.set_rng_state(state['torch'].cpu())
    name, words, *rest = state['numpy']
    np.random.set_state((name, words.cpu().numpy().astype(np.uint32), *rest))
    version, words, gauss = state['python']
    random.setstate((version, tuple(words.tolist()), gauss))
