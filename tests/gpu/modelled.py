"""A rough model of how long a GPU takes for a step of a norm, kernel by kernel. No GPU is needed.

``python -m tests.gpu.modelled SN,2x2048x1050,float16,first …`` prints, for each case, the time of a
training step over that of ``nn.BatchNorm2d``, and with ``-v`` that of every kernel. With
``mask-rcnn`` as its size, a case is each map of Mask R-CNN R50-FPN, and the sum over its layers.

The model knows an H100 as processors that issue instructions, wait for memory, and share its
bandwidth. It knows no cache, no tail of a launch and not how many sectors a load touches, and takes
BN to wait for memory alone, at 0.8 of the bandwidth that our passes have. It is meant to compare
code.
"""

import math
import re
import sys
import tempfile
import types
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch

from tests.gpu import stand_in  # isort: split

# After the stand-in: what normplug imports binds functions of torch.cuda.
from normplug import norms
from normplug.bench.linked_kn import LinkedKN
from normplug.ops import compiled, traced

CLOCK = 1.75e3  # cycles a microsecond
PROCESSORS = 132
WARPS = 64  # that a processor holds
REGISTERS = 65536
BYTES = 3.35e6 * 0.85  # that move in a microsecond
FLOOR = 2.2  # µs from the start of an empty kernel to that of the next
PER_INSTRUCTION = 2.5  # cycles, of one warp
LOAD = 700  # cycles, once in each round of a loop
# The maps of 2 images of 800x1333, normalized everywhere, and how many layers have each.
MASK_RCNN = {
    '2x64x268800': 1, '2x64x67200': 6, '2x256x67200': 6, '2x128x67200': 1,
    '2x128x16800': 7, '2x512x16800': 5, '2x256x16800': 3,
    '2x256x4200': 13, '2x1024x4200': 7, '2x512x4200': 1,
    '2x512x1050': 5, '2x2048x1050': 4, '2x256x1050': 2,
    '1024x256x49': 4, '256x256x196': 4,
}  # fmt: skip
_folder = tempfile.TemporaryDirectory()  # Triton reads the source of its functions
_made = {}  # code, its kernels and its guards, by what a step depends on beside sizes


class _Kernel:
    """In place of a kernel of the code: remembers what it would be launched with."""

    def __init__(self, tuner, log):
        self.tuner, self.log = tuner, log

    def run(self, *args, stream=None):
        self.log.append((self.tuner, args))


def launched(code, tuners, inputs):
    """The kernels that the code launches for meta tensors, with their arguments."""
    log, tuners = [], iter(tuners)
    asynchronous = types.SimpleNamespace(
        triton=lambda *_, **__: _Kernel(next(tuners), log), wait=lambda scope: None
    )
    code = code.replace('AsyncCompile()', 'asynchronous')
    dropped = '_SymmetricMemory', 'import AsyncCompile', 'import _cuda_getCurrentRawStream'
    lines = (line for line in code.split('\n') if not any(word in line for word in dropped))
    space = {'__name__': 'code', 'asynchronous': asynchronous, 'get_raw_stream': lambda device: 0}
    exec(compile('\n'.join(lines), 'code', 'exec'), space)

    def empty(size, stride, dtype):
        return torch.empty_strided(size, stride, dtype=dtype, device='meta')

    space['empty_strided_cuda'] = empty
    space['reinterpret_tensor'] = lambda t, size, stride, offset: empty(size, stride, t.dtype)
    space['call'](inputs)
    return log


@cache
def looked_at(tuner, config):
    """Of a kernel in a configuration: registers, bytes spilled, and its instructions."""
    cubin = stand_in.cubin_of(tuner, config, 90)
    used = stand_in._told(cubin, 'cuobjdump', '-res-usage')
    registers = max(16, int(re.search(r'REG:(\d+)', used)[1]))
    return registers, stand_in.spilled(cubin), *instructions(cubin)


def instructions(cubin):
    """How many stand outside of loops, and in each loop."""
    labels, places, count = {}, [], 0
    for line in stand_in._told(cubin, 'nvdisasm', '-c').splitlines():
        if label := re.match(r'\s*(\.L\w+):', line):
            labels[label[1]] = count
        elif re.search(r';\s*(/\*.*)?$', line) and not line.strip().startswith('.'):
            if jump := re.search(r'\bBRA(?:\.\w+)*\s.*`\((\.L\w+)\)', line):
                places.append((labels.get(jump[1], count + 1), count))
            count += 1
    loops = [(start, end) for start, end in places if start < end - 1]
    looped = {place for start, end in loops for place in range(start, end + 1)}
    return count - len(looped), [end - start + 1 for start, end in loops]


class Time(NamedTuple):
    """Of a launch, in microseconds: what it takes, what by computing, what by memory; and why."""

    whole: float
    computing: float
    memory: float
    about: str


def time_of(tuner, args):
    """One launch in the fastest of the kernel's configurations, which autotuning would choose."""
    return min(time_in(config, tuner, args) for config in tuner.configs)


def time_in(config, tuner, args):
    """One launch in a configuration."""
    sizes = [a for a in args if isinstance(a, int)]
    if tuner.inductor_meta.get('extra_launcher_args') is None:
        _, grid = tuner._interpret_args_grid(args, config)
        rounds = math.ceil(sizes[-1] / config.kwargs.get('R0_BLOCK', sizes[-1]))
    else:  # a kernel of ours, whose grid comes last
        grid, constants = args[-3:], tuner.triton_meta['constants']
        names = [n for n in tuner.fn.arg_names if not n.isupper() or len(n) == 1]
        piece = dict(zip(names, args, strict=False))['piece']
        rounds = math.ceil((constants['WHOLE'] or piece) / constants['BLOCK'])
    warps, programs = config.num_warps, math.prod(grid)
    registers, spilled, straight, loops = looked_at(tuner, config)
    parts = [(straight, 1), *((count, rounds) for count in loops if count > 20)]
    if meta := tuner.inductor_meta.get('combo_grid_meta'):  # a program is one of several kernels
        parts = [(count, n / meta['num_kernels']) for count, n in parts]
    waits = sum(n * (count * PER_INSTRUCTION + LOAD) for count, n in parts)
    issues = sum(n * count * warps / 4 for count, n in parts)
    resident = min(32, WARPS // warps, REGISTERS // (registers * 32 * warps))
    here = min(resident, math.ceil(programs / PROCESSORS))
    waves = math.ceil(programs / (PROCESSORS * here))
    computing = waves * max(waits, here * issues) / CLOCK
    tensors = {id(a): a.numel() * a.element_size() for a in args if isinstance(a, torch.Tensor)}
    memory = sum(tensors.values()) / BYTES
    about = (
        f'{programs} programs of {warps} warps, {here} on a processor, {rounds} rounds, '
        f'{registers} registers, {spilled} bytes spilled, '
        f'{straight} + {loops} instructions'
    )
    return Time(max(FLOOR, computing, memory), computing, memory, about)


def of_batch_norm(numel, size):
    """Forward and backward: statistics, transform, counter; sums, gradient."""
    once = numel * size / (BYTES * 0.8)
    return max(3, once) + max(3, 2 * once) + 2, max(3, 2 * once) + max(3, 3 * once)


def step_times(step, args):
    """Of each launch, by code made for the first size that its guards admit."""
    inputs, key = [], [step]
    compiled._describe(args, inputs, key, exactly=False)
    graphs = _made.setdefault(tuple(key), [])
    code, tuners, _ = next((g for g in graphs if g[-1](inputs)), None) or made(step, args, graphs)
    with traced.trace(step, args, inputs) as t:
        sizes = [traced.sizes_of(inputs)[place] for place in t.passed]
    meta = [t.to('meta') if isinstance(t, torch.Tensor) else t for t in inputs]
    return [(t.fn.__name__, time_of(t, a)) for t, a in launched(code, tuners, [*sizes, *meta])]


def made(step, args, graphs):
    """Code of the first tuning that compiles, its kernels and its guards; added to ``graphs``."""
    for tuning in traced.TUNINGS:
        code, _, fits = stand_in.written(step, args, tuning)
        tuners = stand_in.tuners_of(code, Path(tempfile.mkdtemp(dir=_folder.name))).values()
        try:
            for tuner in tuners:
                for config in tuner.configs:
                    looked_at(tuner, config)
        except RuntimeError:  # PassManager::run failed
            continue
        graphs.append((code, tuners, fits))
        return graphs[-1]
    raise RuntimeError(f'no tuning of {step.__name__} compiles')


def main(name, size, dtype='float32', last='first', verbose=False):
    """Print a case; of a network, each of its maps and their sum."""
    sums, counts = [0, 0], MASK_RCNN if size == 'mask-rcnn' else {size: 1}
    for own, count in counts.items():
        both = layer_times(name, own, dtype, last, verbose)
        sums = [a + count * b for a, b in zip(sums, both, strict=True)]
    if size == 'mask-rcnn':
        ours, bn = sums
        print(f'{name} {size} {dtype} {last}: {ours / 1e3:.2f} ms in {sum(counts.values())} layers,'
              f' {ours / bn:.2f} of BN {bn / 1e3:.2f} ms', flush=True)  # fmt: skip


def layer_times(name, size, dtype, last, verbose):
    """A training step of a layer, and of BN, in microseconds."""
    torch.manual_seed(0)
    n, c, pixels = (int(part) for part in size.split('x'))
    dtype = getattr(torch, dtype)
    layer = (LinkedKN if name == 'KN' else getattr(norms, name))(c).train()
    total, counts = 0, []
    for step, args in stand_in.steps_of(layer, torch.randn(2, c, 4, 4)).items():
        rows = step_times(step, stand_in.resized(args, (n, c, pixels), dtype, last == 'last'))
        counts.append(len(rows))
        total += sum(time.whole for _, time in rows)
        for kernel, time in rows if verbose else ():
            parts = f'computing {time.computing:.1f}, memory {time.memory:.1f}'
            print(f'    {time.whole:6.1f} µs ({parts}) {kernel}: {time.about}')
    bn = sum(of_batch_norm(n * c * pixels, dtype.itemsize))
    took = f'{total:.0f} µs in {counts} launches, {total / bn:.2f} of BN {bn:.0f} µs'
    print(f'{name} {size} {dtype} {last}: {took}', flush=True)
    return total, bn


if __name__ == '__main__':
    verbose = '-v' in sys.argv
    for case in sys.argv[1:]:
        if case != '-v':
            main(*case.split(','), verbose=verbose)
