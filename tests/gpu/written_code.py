"""Writes code for a GPU, and what it must compute; test_gpu_interpreter.py starts this.

In a process of its own: Triton either compiles or interprets.
"""

import pickle
import sys
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tests.gpu import stand_in  # isort: split

# After the stand-in: what normplug imports binds functions of torch.cuda.
from normplug import norms
from normplug.bench.linked_kn import LinkedKN
from normplug.ops import compiled, traced

LAYERS = {
    'KN': LinkedKN,
    'SW': partial(norms.SW, num_pergroup=2, sw_type=5),
    'IterNorm': partial(norms.IterNorm, num_channels=4),
    'GW': partial(norms.GW, num_groups=4),
}
SINGLE, HALF, BRAIN = torch.float32, torch.float16, torch.bfloat16
ODD = 2, 6, 35
# Name, (N, C, P), those that the code was made for, dtype, whether channels are innermost, mode.
CASES = {
    'scales': [
        *((name, ODD, ODD, SINGLE, False, 'train') for name in ('SN', 'SSN', 'IBN', 'KN')),
        ('SN', (3, 8, 35), (2, 8, 60), HALF, True, 'train'),
        ('SN', (2, 3, 8300), (4, 3, 9000), SINGLE, False, 'train'),
    ],
    # In each class of pixels; thousands of images take the interpreter minutes.
    'SW': [
        ('SW', (3, 8, 35), (2, 8, 60), SINGLE, False, 'train'),
        ('SW', (3, 8, 150), (5, 8, 70), HALF, True, 'train'),
        ('SW', (2, 8, 1001), (3, 8, 300), BRAIN, False, 'train'),
        ('SW', (2, 8, 2100), (3, 8, 3000), SINGLE, False, 'train'),
        ('SW', (2, 8, 8300), (3, 8, 9001), SINGLE, True, 'train'),
        ('SW', (3, 8, 35), (2, 8, 60), BRAIN, True, 'eval'),
    ],
    # Whose passes are those of SW.
    'IterNorm and GW': [
        ('IterNorm', (3, 8, 35), (2, 8, 60), BRAIN, True, 'train'),
        ('IterNorm', (3, 8, 150), (5, 8, 70), HALF, False, 'eval'),
        ('IterNorm', (3, 8, 8300), (4, 8, 9001), SINGLE, False, 'train'),
        ('GW', (3, 8, 35), (2, 8, 60), HALF, False, 'train'),
        ('GW', (2, 8, 1001), (3, 8, 300), SINGLE, True, 'train'),
    ],
}


def copied(args):
    """A copy of every tensor, in its layout; of an expanded one, which no step writes, itself."""

    def one(t):
        if not isinstance(t, Tensor):
            return t
        return t.detach() if 0 in t.stride() else t.detach().clone()

    return pytree.tree_map(one, args)


def case(name, shape, made_for, dtype, last, mode):
    """Code made for one size, the inputs of another, and what plain torch makes of them."""
    torch.manual_seed(0)
    layer = LAYERS.get(name, getattr(norms, name, None))(shape[1])
    x = (torch.randn(*shape, 1) * 2 + 1).to(dtype)
    if mode == 'eval':
        layer(x)  # its running statistics move
        layer.eval()
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
        label = f'{name} {step.__name__} {shape} {dtype} {"last" if last else "first"} {mode}'
        yield label, code, flat, results, written, tensors


if __name__ == '__main__':
    rows = [row for arguments in CASES[sys.argv[2]] for row in case(*arguments)]
    Path(sys.argv[1]).write_bytes(pickle.dumps(rows))
