"""Prints, for a norm: step, launches, and what kernels do; test_gpu_code.py runs this."""

import json
import sys
import tempfile
from pathlib import Path

import torch

from tests.gpu import stand_in  # isort: split

# After the stand-in: what normplug imports binds functions of torch.cuda.
from normplug import norms
from normplug.bench.contenders import LAYERS
from normplug.ops.traced import TUNINGS


class TwoRanks:
    """Another rank that has the same samples."""

    def gather(self, own):
        return own.expand(2, *own.shape).contiguous()

    def sum(self, own):
        return own


def main(case: str) -> None:
    name, size, dtype, last, train = case.split(',')
    torch.manual_seed(0)
    n, c, pixels = (int(part) for part in size.split('x'))
    # Of as many groups as the layer's default.
    kind = norms.GW if name == 'GW' else LAYERS[name]
    layer = kind(c).train(train == 'train')
    capabilities = (80, 90) if dtype == 'bfloat16' else (75, 80, 90)
    if name.startswith('Sync'):
        layer.reducer = TwoRanks
    for step, args in stand_in.steps_of(layer, torch.randn(2, c, 4, 4)).items():
        if step.__name__ == 'merge_step':  # of what the ranks gathered, which has no pixels
            big = args
        else:
            big = stand_in.resized(args, (n, c, pixels), getattr(torch, dtype), last == 'last')
        found = first_that_compiles(step, big, capabilities)
        print(json.dumps({'case': case, 'step': step.__name__, **found}), flush=True)


def first_that_compiles(step, args, capabilities):
    """What is of the code of the first tuning that Triton compiles."""
    for tuning in TUNINGS:
        try:
            code = stand_in.code_of(step, args, tuning)
        except RuntimeError:  # of Inductor, on combined kernels
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                spills = {cc: stand_in.always_spill(code, Path(folder), cc) for cc in capabilities}
            except RuntimeError:  # PassManager::run failed
                continue
            narrow = stand_in.narrow(code, Path(folder), capabilities[-1])
            in_float64 = stand_in.in_float64(code, Path(folder), capabilities[-1])
        return {
            'launches': stand_in.launches(code),
            'products': stand_in.products(code),
            'spills': spills,
            'narrow': narrow,
            'in_float64': in_float64,
        }
    raise RuntimeError(f'no tuning of {step.__name__} compiles')


if __name__ == '__main__':
    for case in sys.argv[1:]:
        main(case)
