"""Runs code written for a GPU in Triton's interpreter; test_gpu_interpreter.py starts this."""

import math
import pickle
import sys
import tempfile
import types
from pathlib import Path

import numpy as np
import torch
from triton.language import core
from triton.runtime.interpreter import TensorHandle

from tests.gpu import stand_in

ROUNDED = {torch.bfloat16: 2**-7, torch.float16: 2e-3}  # a last digit, of the largest
_NUMPY = {name: getattr(np, name) for name in ('exp', 'sqrt', 'log', 'isnan', 'isinf', 'abs')}
_NUMPY['rsqrt'] = lambda value: 1 / np.sqrt(value)


def _libdevice():
    """The interpreter has no libdevice; numpy stands in."""

    def of(function):
        def call(x, _semantic=None, **_):
            data = function(x.handle.data).astype(x.handle.data.dtype)
            return core.tensor(TensorHandle(data, x.handle.dtype), x.type)

        return call

    return types.SimpleNamespace(**{name: of(function) for name, function in _NUMPY.items()})


class _Kernel:
    def __init__(self, tuner):
        self.tuner = tuner
        if 'libdevice' in tuner.fn.fn.__globals__:
            tuner.fn.fn.__globals__['libdevice'] = _libdevice()

    def run(self, *args, stream=None):
        constants = self.tuner.triton_meta.get('constants', {})
        own = self.tuner.inductor_meta.get('extra_launcher_args')
        if own is None:
            # Any is right, and the interpreter takes each program in turn.
            config = max(self.tuner.configs, key=lambda own: math.prod(own.kwargs.values()))
            args, grid = self.tuner._interpret_args_grid(args, config)
            self.tuner.fn[grid](*args, **config.kwargs)
            return
        grid, args = args[-len(own) :], args[: -len(own)]  # a kernel of ours
        names = [name for name in self.tuner.fn.arg_names if not name.isupper() or len(name) == 1]
        self.tuner.fn[grid](**dict(zip(names, args, strict=False)) | constants)


def run(code, inputs, folder):
    """What the code returns for inputs on the CPU."""
    tuners = iter(stand_in.tuners_of(code, folder).values())
    asynchronous = types.SimpleNamespace(
        triton=lambda *_, **__: _Kernel(next(tuners)), wait=lambda scope: None
    )
    for old, new in (
        ('from torch._C import _cuda_getCurrentRawStream as get_raw_stream', ''),
        ('from torch._inductor.async_compile import AsyncCompile', ''),
        ('AsyncCompile()', 'asynchronous'),
    ):
        code = code.replace(old, new)
    code = '\n'.join(line for line in code.split('\n') if '_SymmetricMemory' not in line)
    space = {'__name__': 'code', 'asynchronous': asynchronous, 'get_raw_stream': lambda device: 0}
    exec(compile(code, 'code', 'exec'), space)
    space['empty_strided_cuda'] = lambda size, stride, dtype: torch.empty_strided(
        size, stride, dtype=dtype
    )
    return space['call'](list(inputs))


def error(ours, theirs):
    """The largest difference, relative to the largest value."""
    difference = (ours.double().reshape(theirs.shape) - theirs.double()).abs().max()
    return (difference / theirs.double().abs().max().clamp(min=1e-12)).item()


def check(name, code, inputs, results, written, tensors):
    """What the code returns and writes, against plain torch; print the largest difference."""
    with tempfile.TemporaryDirectory() as folder:
        ours = run(code, inputs, Path(folder))
    pairs = [*zip(ours, results, strict=True), *zip(tensors, written, strict=True)]
    assert all((a is None) == (b is None) for a, b in pairs), name
    worst = 0.0
    for a, b in pairs:
        if a is not None and b.numel():
            own = error(a, b)
            assert own < ROUNDED.get(b.dtype, 2e-5), f'{name}, {b.dtype}: {own:.1e}'  # no NaN
            worst = max(worst, own)
    print(f'{name}: {worst:.1e}')


if __name__ == '__main__':
    for row in pickle.loads(Path(sys.argv[1]).read_bytes()):
        check(*row)
