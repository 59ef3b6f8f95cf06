"""A pretended GPU: Inductor's code for steps, and its kernels as cubins. No GPU is needed.

It changes torch and Triton for the whole process, so only a process of its own imports it.
"""

import re
import subprocess
import tempfile
import types
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from torch.utils import _pytree as pytree
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime import driver

_BIN = Path(triton.__file__).parent / 'backends/nvidia/bin'
_H100 = types.SimpleNamespace(
    name='NVIDIA H100 80GB HBM3', major=9, minor=0, multi_processor_count=132,
    regs_per_multiprocessor=65536, max_threads_per_multi_processor=2048,
    max_threads_per_block=1024, shared_memory_per_block=49152,
    shared_memory_per_block_optin=232448, shared_memory_per_multiprocessor=233472,
    total_memory=80 * 2**30, L2_cache_size=50 * 2**20, warp_size=32, gcnArchName='',
    clock_rate=1980000, memory_clock_rate=2619000, memory_bus_width=5120,
    is_integrated=0, is_multi_gpu_board=0,
)  # fmt: skip


class _Device(nullcontext):
    """The current device within a context: the only one."""


class _Driver:
    def get_current_target(self):
        return GPUTarget('cuda', 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device=None):
        return 0

    def get_active_torch_device(self):
        return torch.device('cuda', 0)


def pretend() -> None:
    """Have torch, Inductor and Triton see one H100."""
    answers = {
        'is_available': True, 'device_count': 1, 'current_device': 0, 'is_initialized': True,
        '_lazy_init': None, 'get_device_properties': _H100, 'get_device_capability': (9, 0),
        'get_device_name': _H100.name, 'synchronize': None, 'set_device': None,
        'is_bf16_supported': True, '_exchange_device': 0, '_maybe_exchange_device': 0,
        'set_rng_state': None, 'get_rng_state': torch.zeros(16, dtype=torch.uint8),
    }  # fmt: skip
    for name, answer in answers.items():
        setattr(torch.cuda, name, lambda *_, answer=answer, **__: answer)
    torch.accelerator.current_device_index = lambda: 0
    torch.accelerator.is_available = lambda: True
    torch.cuda.device = torch.cuda._DeviceGuard = _Device
    driver.set_active(_Driver())
    import torch._inductor.fx_passes.reinplace as reinplace
    import torch._inductor.runtime.triton_helpers as helpers
    import torch._subclasses.fake_tensor as fake_tensor
    from torch._dynamo.device_interface import caching_worker_device_properties

    caching_worker_device_properties['cuda'] = [_H100]
    fake_tensor.init_gpu_context = lambda device: None
    reinplace._inplace_generalized_scatter = lambda inp, src, views: inp  # would ask the driver
    helpers.set_driver_to_gpu = lambda: None


pretend()


def steps_of(layer: torch.nn.Module, x: Tensor) -> dict[str, Sequence[Any]]:
    """The arguments, by step, of the layer's last forward and backward, run eagerly on ``x``."""
    from normplug import precision
    from normplug.ops import fused

    seen, real = {}, fused._run
    precision._IN_FLOAT64 = frozenset()  # as on a GPU

    def recording(plan: Any, step: Callable, *args: Any) -> Any:
        seen[step] = args
        return step(*args)

    fused._run = recording
    try:
        y = layer(x.requires_grad_())
        y.backward(torch.randn_like(y))
    finally:
        fused._run = real
    return seen


def resized(
    args: Sequence[Any],
    size: tuple[int, int, int],
    dtype: torch.dtype = torch.float32,
    last: bool = False,
) -> Sequence[Any]:
    """``args`` of a small map as those of one of ``size``, (N, C, P); what they hold is lost.

    C is the map's own. Of blocks of channels, N is not the number of blocks.
    """
    old = args[0].shape

    def one(t: Any) -> Any:
        if not isinstance(t, Tensor):
            return t
        n, c, pixels = size
        if t.shape == old:
            if last:
                return torch.empty(n, pixels, c, dtype=dtype).transpose(1, 2)
            return torch.empty(size, dtype=dtype)
        if t.shape == old[:2] or (t.dim() > 2 and t.shape[0] == old[0]):  # of the images
            if t.stride(0) == 0:
                return t[:1].expand(n, *t.shape[1:])
            return torch.empty(n, *t.shape[1:], dtype=t.dtype)
        return t

    return pytree.tree_map(one, args)


class Written(NamedTuple):
    """What Inductor writes for a GPU: see :class:`normplug.ops.compiled._Graph`."""

    code: str
    passed: Sequence[int]
    fits: Callable[[Sequence[Any]], bool]


def code_of(step: Callable, args: Sequence[Any], tuning: int = 1) -> str:
    """What Inductor writes for a GPU."""
    return written(step, args, tuning).code


def written(step: Callable, args: Sequence[Any], tuning: int = 1) -> Written:
    """What Inductor writes for a GPU, and what it takes."""
    import torch._inductor.codecache as codecache
    from torch._dispatch.python import enable_python_dispatcher
    from torch._guards import TracingContext, tracing
    from torch._inductor import config
    from torch._inductor.compile_fx import compile_fx_inner
    from torch._inductor.graph import GraphLowering
    from torch.fx.passes.fake_tensor_prop import FakeTensorProp

    from normplug.ops import compiled, steps, traced

    class WrittenError(Exception):
        pass

    def stop(*_: Any, **__: Any) -> None:
        raise WrittenError

    inputs, codes, device = [], [], torch.device('cuda', 0)
    compiled._describe(args, inputs, [])
    real = steps.on_gpu
    steps.on_gpu = traced.on_gpu = lambda x: True
    loaders = codecache.PyCodeCache.load_by_key_path, codecache.PyCodeCache.load
    try:
        with traced.trace(step, args, inputs, tuning) as t:
            for node in t.graph.graph.nodes:
                if node.kwargs.get('device') is not None:
                    node.kwargs = {**node.kwargs, 'device': device}
            with t.mode:
                moved = [
                    torch.empty_strided(v.shape, v.stride(), dtype=v.dtype, device=device)
                    if isinstance(v, Tensor)
                    else v
                    for v in t.inputs
                ]
            t.graph.recompile()
            with enable_python_dispatcher():
                FakeTensorProp(t.graph, t.mode).propagate_dont_convert_inputs(*moved)
            GraphLowering.save_output_code = staticmethod(codes.append)
            for name in ('load_by_key_path', 'load'):
                setattr(codecache.PyCodeCache, name, stop)
            options = {**t.options, 'force_disable_caches': True, 'compile_threads': 1}
            try:
                with tracing(TracingContext(t.mode)), config.patch(options):
                    compile_fx_inner(t.graph, moved)
            except Exception:  # WrittenError, as Inductor wraps it
                if not codes:
                    raise
            fits = t.guards()
            assert fits(inputs), 'the code does not take what it was made of'
    finally:
        steps.on_gpu = traced.on_gpu = real
        codecache.PyCodeCache.load_by_key_path, codecache.PyCodeCache.load = loaders
    return Written(codes[0], t.passed, fits)


def launches(code: str) -> int:
    """How many kernels a call of the code launches."""
    return code.split('def call(self')[1].count('.run(')


def products(code: str) -> int:
    """How many products of matrices a call of the code leaves to the library."""
    return len(re.findall(r'extern_kernels\.(bmm|mm|baddbmm|addmm)\(', code))


def tuners_of(code: str, folder: Path) -> dict[str, Any]:
    """Inductor's kernels of the code, by name."""
    tuners = {}
    for name, source in re.findall(r"async_compile\.triton\('(\w+)', '''(.*?)''', d", code, re.S):
        path = folder / f'{name}_{len(tuners)}.py'  # Triton reads the source of its functions
        path.write_text(source)
        space = {'__name__': name, '__file__': str(path)}
        exec(compile(source, path, 'exec'), space)
        tuners[path.stem] = space[name]
    return tuners


def compiled_kernel(tuner: Any, config: Any, capability: int) -> dict[str, Any]:
    """A kernel of a configuration, compiled ahead of time, in all of its forms: cubin, ptx, …"""
    meta = tuner._create_compile_meta(config)
    source = ASTSource(tuner.fn, meta['signature'], meta['constants'], meta['configs'][0])
    options = tuner._create_compile_options(config, meta)
    target = GPUTarget('cuda', capability, 32)
    return triton.compile(source, target=target, options=options).asm


def cubin_of(tuner: Any, config: Any, capability: int) -> bytes:
    """What of a kernel is loaded."""
    return compiled_kernel(tuner, config, capability)['cubin']


def in_float64(code: str, folder: Path, capability: int) -> list[str]:
    """The kernels of the code that have any value in float64."""
    return [
        name
        for name, tuner in tuners_of(code, folder).items()
        if '.f64' in compiled_kernel(tuner, tuner.configs[0], capability)['ptx']
    ]


def _told(cubin: bytes, *command: str) -> str:
    with tempfile.NamedTemporaryFile(suffix='.cubin') as file:
        file.write(cubin)
        file.flush()
        return subprocess.run(
            [_BIN / command[0], *command[1:], file.name], capture_output=True, text=True, check=True
        ).stdout


def loads_widely(cubin: bytes) -> bool:
    """Whether there are loads of 16 bytes, and none of 2."""
    code = _told(cubin, 'nvdisasm', '-c')
    return 'LDG.E.128' in code and 'LDG.E.U16' not in code


def spilled(cubin: bytes) -> int:
    """Bytes of a thread's memory outside registers."""
    used = _told(cubin, 'cuobjdump', '-res-usage')
    return sum(int(size) for size in re.search(r'STACK:(\d+).*LOCAL:(\d+)', used).groups())


def narrow(code: str, folder: Path, capability: int) -> list[str]:
    """The passes over x, of those in the code, that load fewer than 16 bytes at a time."""
    passes = {n: t for n, t in tuners_of(code, folder).items() if '_kernel_' in n}
    return [
        name
        for name, tuner in passes.items()
        if not loads_widely(cubin_of(tuner, tuner.configs[0], capability))
    ]


def always_spill(code: str, folder: Path, capability: int) -> dict[str, int]:
    """The kernels of the code that spill in every configuration, and at least how many bytes."""
    least = {}
    for name, tuner in tuners_of(code, folder).items():
        sizes = []
        for config in tuner.configs:
            sizes.append(spilled(cubin_of(tuner, config, capability)))
            if not sizes[-1]:
                break
        else:
            least[name] = min(sizes)
    return least
