"""Time whole training steps of a network with each norm, in turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.runner import set_random_seed

from normplug.errors import NormplugError
from normplug.ops.backend import get_backend, set_backend
from normplug.register import NORMS

from .cases import LAYOUTS
from .compilation import compilations, forget_compiled, ran_by
from .memory import kept_bytes, peak_bytes
from .networks import Network
from .timing import in_turns, quantiles, seconds_of

__all__ = ['DivergedError', 'measure_model']


class DivergedError(NormplugError):
    """A loss is not finite: such steps do less work than real ones."""


class _Trainer:
    """Data preprocessing, losses, backward and SGD of one network."""

    def __init__(
        self, network: Network, norm: str, backend: str | None, dtype: str, layout: str, device: str
    ) -> None:
        self.norm, self.backend = norm, backend
        self.model = network.build(norm).to(device, memory_format=LAYOUTS[layout])
        self.data = network.data()
        sgd = torch.optim.SGD(self.model.parameters(), lr=1e-4, momentum=0.9)
        half = dtype != 'float32'
        self.optim = AmpOptimWrapper(dtype=dtype, optimizer=sgd) if half else OptimWrapper(sgd)

    def __str__(self) -> str:
        """The norm and, where there is a choice, the backend."""
        return f'{self.norm} ({self.backend})' if self.backend else self.norm

    def prepare(self) -> list[Callable[[Any], Any]]:
        """Prepare a step, which is not timed, and return it."""
        if self.backend not in (None, get_backend()):
            set_backend(self.backend)
        set_random_seed(0)  # the samplers of boxes draw from it
        return [self.step]

    def forward(self) -> dict:
        """Return the losses of a step."""
        with self.optim.optim_context(self.model):
            data = self.model.data_preprocessor(self.data, True)
            return self.model(**data, mode='loss')

    def step(self, _: Any = None) -> dict:
        """Take one training step; return the losses."""
        return self.model.train_step(self.data, self.optim)


def measure_model(
    network: Network,
    norms: Sequence[str],
    backends: Sequence[str],
    dtype: str,
    layout: str,
    device: str,
    seconds: float,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """A row for each norm and backend, and one for BN, all of them trained in turns.

    Every network starts from the same seed and sees the same images. On a GPU a step ends when
    the device has done it.

    Args:
        network: what to train.
        norms: keys of ``contenders.LAYERS``.
        backends: of the norms that are ours.
        dtype: 'float32', or a half type for autocast (and a GradScaler, on CUDA).
        layout: key of ``LAYOUTS``.
        device: 'cpu' or 'cuda'.
        seconds: for all rounds.
        say: takes a line of progress.

    Raises:
        DivergedError: a network's losses are not finite.
    """
    forget_compiled()
    before = compilations()
    trainers, facts = [], []
    for norm in dict.fromkeys([*norms, 'BN']):
        for backend in backends if norm in NORMS else [None]:
            trainer = _Trainer(network, norm, backend, dtype, layout, device)
            say(f'{network.name}, {trainer}: first steps')
            trainers.append(trainer)
            facts.append(_first_steps(trainer, device))
    say(f'{network.name}: in turns')
    times = in_turns([t.prepare for t in trainers], device, seconds, queued=False)
    totals = [[t.parts[0] for t in own] for own in times]
    base = totals[next(i for i, t in enumerate(trainers) if t.norm == 'BN')]
    rows = []
    for trainer, own, fact in zip(trainers, totals, facts, strict=True):
        p20, p50, p80 = quantiles(own)
        rows.append(
            {
                'model': network.name,
                'images': network.images,
                'image_size': f'{network.height}x{network.width}',
                'dtype': dtype,
                'layout': layout,
                'norm': trainer.norm,
                'backend': ran_by(trainer.backend or 'native', compilations() - before),
                'step_s_p20': p20,
                'step_s_p50': p50,
                'step_s_p80': p80,
                'images/s': network.images / p50,
                'rounds': len(own),
                'ratio': quantiles([a / b for a, b in zip(own, base, strict=True)])[1],
                'ratio_to': 'BN',
                **fact,
            }
        )
    return rows


def _first_steps(trainer: _Trainer, device: str) -> dict[str, float | int | None]:
    compiled = compilations()
    (step,) = trainer.prepare()
    losses: dict = {}
    first_use = seconds_of(lambda: losses.update(step()), device)
    broken = [name for name, value in losses.items() if not _is_finite(value)]
    if broken:
        raise DivergedError(f'{trainer}: {broken[0]} is not finite; nothing is reported')
    kept = kept_bytes(trainer.forward, trainer.model)
    peak = peak_bytes(step, device)
    return {
        'kept_MB': kept / 1e6,
        'peak_MB': None if peak is None else peak / 1e6,
        'first_use_s': first_use,
        'compilations': compilations() - compiled,
    }


def _is_finite(value: Any) -> bool:
    return bool(torch.isfinite(torch.as_tensor(value)).all())
