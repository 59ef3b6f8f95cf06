"""Writes code for a GPU, and what it must compute; test_gpu_interpreter.py starts this.

In a process of its own: Triton either compiles or interprets, and Inductor reads our kernels as
they are compiled.
"""

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tests.gpu import stand_in  # isort: split

# After the stand-in: what normplug imports binds functions of torch.cuda.
from normplug import norms
from normplug.bench.linked_kn import LinkedKN
from normplug.ops import compiled, traced

SINGLE, HALF = torch.float32, torch.float16
ODD = 2, 6, 35
# Layer, (N, C, P), those that the code was made for, dtype, whether channels are innermost.
CASES = [
    *((kind, ODD, ODD, SINGLE, False) for kind in (norms.SN, norms.SSN, norms.IBN, LinkedKN)),
    (norms.SN, (3, 8, 35), (2, 8, 60), HALF, True),
    (norms.SN, (2, 3, 8300), (4, 3, 9000), SINGLE, False),
]


def copied(args):
    """A copy of every tensor, in its layout; of an expanded one, which no step writes, itself."""

    def one(t):
        if not isinstance(t, Tensor):
            return t
        return t.detach() if 0 in t.stride() else t.detach().clone()

    return pytree.tree_map(one, args)


def case(
    layer: torch.nn.Module,
    shape: tuple[int, int, int],
    made_for: tuple[int, int, int],
    dtype: torch.dtype,
    last: bool,
) -> Iterator[tuple]:
    """Code made for one size, the inputs of another, and what plain torch makes of them."""
    torch.manual_seed(0)
    # Of images that differ: else the gradient of a ratio is a difference of almost equal values.
    spread = torch.linspace(1, 3, shape[0]).reshape(-1, 1, 1, 1)
    x = (torch.randn(*shape, 1) * spread + spread).to(dtype)
    if last:
        x = x.to(memory_format=torch.channels_last)
    mode = 'train' if layer.training else 'eval'
    for step, args in stand_in.steps_of(layer, x).items():
        written = stand_in.written(step, stand_in.resized(args, made_for, dtype, last))
        wanted, given = copied(args), copied(args)
        inputs = []
        compiled._describe(given, inputs, [])
        with torch.no_grad():
            results, _ = traced.flattened(step(*wanted))
        sizes = traced.sizes_of(inputs)
        flat = [*(sizes[place] for place in written.passed), *inputs]
        label = f'{type(layer).__name__} {step.__name__} {shape} {dtype} {last=} {mode}'
        assert written.fits(inputs), f'{label}: not of the class of {made_for}'
        tensors = [
            [t for t in pytree.tree_leaves(own) if isinstance(t, Tensor)] for own in (wanted, given)
        ]
        yield label, written.code, flat, results, *tensors


if __name__ == '__main__':
    rows = [row for kind, *sizes in CASES for row in case(kind(sizes[0][1]), *sizes)]
    Path(sys.argv[1]).write_bytes(pickle.dumps(rows))
