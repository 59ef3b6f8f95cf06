"""Count host waits for the device, and the kernels that a layer launches."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from mmengine.model import BaseModel
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import Tensor, nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from normplug.norms import SSN
from normplug.register import NORMS

from .checks import Check, FailedError, Setting, SkippedError
from .comparison import LOCAL, layer_of, run, tensors_of

__all__ = ['iterations', 'launch_checks', 'wait_checks']

_SHAPE = (2, 64, 50, 84)
# Host waits in an iteration that a hook may add. The loss has to be known before the step.
_HOOKS = {'SSNRadiusHook': 0, 'NonFiniteLossHook': 1}
_ITERATIONS = 4


def wait_checks(setting: Setting) -> Iterator[Check]:
    """A check for each backend and type, and for each hook that acts in every iteration."""
    for backend in setting.backends:
        for name in NORMS:
            call = partial(_no_wait, name, backend)
            yield Check(f'{name}, {backend}', call, gpus=1)
    for hook, allowed in _HOOKS.items():
        yield Check(hook, partial(_of_hook, hook, allowed), gpus=1)


def launch_checks(setting: Setting) -> Iterator[Check]:
    """A check for each backend and type, and BN."""
    for backend in reversed(setting.backends):
        for name in LOCAL:
            call = partial(_launches, name, backend)
            yield Check(f'{name}, {backend}', call, gpus=1)
    yield Check('BN', partial(_launches, 'BN', 'eager'), gpus=1)


def _no_wait(name: str, backend: str) -> str:
    layer = layer_of(name, _SHAPE[1], backend, 'cuda')
    x, dy = tensors_of(_SHAPE, 'float32', 'contiguous', 'cuda')
    for _ in range(2):
        run(layer, x, dy, True)
    torch.cuda.set_sync_debug_mode('error')
    try:
        run(layer, x, dy, True)
    finally:
        torch.cuda.set_sync_debug_mode('default')
    return 'none in forward and backward'


def _of_hook(hook: str, allowed: int) -> str:
    own = _waits(hook) - _waits(None)
    told = f'{own} in an iteration'
    if own > allowed:
        raise FailedError(f'{told}, allowed: {allowed}')
    return told


@cache
def _waits(hook: str | None) -> int:
    """In an iteration with this hook alone; the first, which compiles, does not count."""
    counts: list[int] = []
    hooks = [] if hook is None else [dict(type=hook)]
    iterations('cuda', hooks, partial(_counted, counts))
    return max(counts[1:])


@contextmanager
def _counted(counts: list[int]) -> Iterator[None]:
    torch.cuda.set_sync_debug_mode('warn')
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter('always')
            yield
    finally:
        torch.cuda.set_sync_debug_mode('default')
    counts.append(sum('synchronizing CUDA operation' in str(w.message) for w in told))


class _Model(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 8, 3), SSN(8), nn.ReLU(), nn.Conv2d(8, 1, 3))

    def forward(self, images: Tensor, mode: str = 'tensor') -> dict[str, Tensor]:
        return {'loss': self.net(images).square().mean()}


def iterations(
    device: str, hooks: list[dict[str, Any]], around: Callable[[], AbstractContextManager]
) -> None:
    """Train a small model with SSN for four iterations with ``hooks`` and no others.

    Args:
        device: 'cpu' or 'cuda'.
        hooks: mmengine's ``custom_hooks``.
        around: makes the context of each iteration, hooks included.
    """

    class Loop(EpochBasedTrainLoop):
        def run_iter(self, idx: int, data_batch: Any) -> None:
            with around():
                super().run_iter(idx, data_batch)

    defaults = ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint')
    with tempfile.TemporaryDirectory(prefix='normplug-gpu-check-') as folder:
        loader = dict(
            dataset=[{'images': x} for x in torch.randn(2 * _ITERATIONS, 3, 12, 12)],
            batch_size=2,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
        )
        runner = Runner(
            _Model(),
            folder,
            train_dataloader=loader,
            train_cfg=dict(type=Loop, max_epochs=1),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=1e-3)),
            default_hooks=dict.fromkeys(defaults),
            custom_hooks=hooks,
            experiment_name=Path(folder).name,
            log_level='ERROR',
        )
        runner.model.to(device)
        runner.train()


def _launches(name: str, backend: str) -> str:
    layer = layer_of(name, _SHAPE[1], backend, 'cuda')
    x, dy = tensors_of(_SHAPE, 'float32', 'contiguous', 'cuda')
    x.requires_grad_()
    inputs = (x, *layer.parameters())
    for _ in range(2):
        torch.autograd.grad(layer(x), inputs, dy)
    y, forward = _kernels(lambda: layer(x))
    _, backward = _kernels(lambda: torch.autograd.grad(y, inputs, dy))
    if not forward:
        raise SkippedError('the profiler sees no kernels here')
    return f'{forward} kernels forward, {backward} backward'


def _kernels(call: Callable[[], Any]) -> tuple[Any, int]:
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        result = call()
        torch.cuda.synchronize()
    events = [event for event in seen.key_averages() if event.device_type == DeviceType.CUDA]
    return result, sum(event.count for event in events)
