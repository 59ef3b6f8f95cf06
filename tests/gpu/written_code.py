"""Writes code for a GPU, and what it must compute; test_gpu_interpreter.py starts this.

In a process of its own: Triton either compiles or interprets.
"""

import pickle
import sys
from pathlib import Path

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tests.gpu import stand_in  # isort: split

# After the stand-in: what normplug imports binds functions of torch.cuda.
from normplug import norms
from normplug.bench.linked_kn import LinkedKN
from normplug.ops import compiled, traced


def copied(args):
    """A copy of every tensor, in its layout."""
    return pytree.tree_map(lambda t: t.detach().clone() if isinstance(t, Tensor) else t, args)


def case(name, shape, made_for, dtype, last):
    """Code made for one size, the inputs of another, and what plain torch makes of them."""
    torch.manual_seed(0)
    layer = (LinkedKN if name == 'KN' else getattr(norms, name))(shape[1]).train()
    x = (torch.randn(*shape, 1) * 2 + 1).to(dtype)
    if last:
        x = x.to(memory_format=torch.channels_last)
    for step, args in stand_in.steps_of(layer, x).items():
        code = stand_in.code_of(step, stand_in.resized(args, made_for, dtype, last))
        wanted, given = copied(args), copied(args)
        inputs = []
        compiled._describe(given, inputs, [])
        with torch.no_grad():
            results, _ = traced.flattened(step(*wanted))
        written = [t for t in pytree.tree_leaves(wanted) if isinstance(t, Tensor)]
        tensors = [t for t in pytree.tree_leaves(given) if isinstance(t, Tensor)]
        with traced.trace(step, args, inputs) as t:
            passed = t.passed
        sizes = traced.sizes_of(inputs)
        flat = [*(sizes[place] for place in passed), *inputs]
        yield f'{name} {step.__name__}', code, flat, results, written, tensors


if __name__ == '__main__':
    odd = 2, 6, 35
    cases = [
        *(case(name, odd, odd, torch.float32, False) for name in ('SN', 'SSN', 'IBN', 'KN')),
        case('SN', (3, 8, 35), (2, 8, 60), torch.float16, True),
        case('SN', (2, 3, 8300), (4, 3, 9000), torch.float32, False),
    ]
    Path(sys.argv[1]).write_bytes(pickle.dumps([row for rows in cases for row in rows]))
