"""What the noise of batch statistics does to a training's loss: F_γ, E[A''] and ρ of its layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from normplug.batch_noise import decay_strength
from normplug.dist import group_reducer
from normplug.forward_hooks import HookOfOriginal
from normplug.norms import BaseNorm
from normplug.norms.switchable import SwitchableNorm
from normplug.ops import mean_sigmoid
from normplug.population.central_moments import CentralMoments
from normplug.population.input_moments import InputMoments
from normplug.population.sample_grads import SampleGradients
from normplug.precision import small_dtype
from normplug.running import in_recomputation

__all__ = ['CURVATURES', 'DecayEstimate']

CURVATURES = ('fisher', 'sigmoid')


class DecayEstimate:
    """Slow averages of F_γ and E[A''(h̄)], and ρ, of the channels of some layers together.

    An average over steps moves by 1/t until that is ``momentum``. A channel without a gradient in a
    step keeps its own. All ranks have the same values.

    Args:
        layers: by name; of one device.
        momentum: weight of a new step.
        curvature: see :class:`normplug.hooks.GammaDecayHook`.
        loss_factor: see :class:`SampleGradients`.

    Attributes:
        layers: by name.
        inputs: to add those that ρ is estimated from.
        means: F_γ and E[A''], (2, ΣC).
        steps: how many are in them, (2, ΣC).
        kurtosis: ρ, (ΣC,), initially 0.
    """

    def __init__(
        self,
        layers: Mapping[str, BaseNorm],
        momentum: float = 0.01,
        curvature: str = 'fisher',
        loss_factor: Callable[[], float] = lambda: 1.0,
    ) -> None:
        self.layers = dict(layers)
        self.momentum, self.curvature = momentum, curvature
        own = list(self.layers.values())
        self.gradients = SampleGradients(own, loss_factor)
        self.gradients.is_on = False
        self.inputs = InputMoments(own)
        self.outputs = _SigmoidOutputs(own) if curvature == 'sigmoid' else None
        self.means = torch.zeros_like(self.gradients.sums)
        self.steps = torch.zeros_like(self.means)
        self.kurtosis = torch.zeros_like(self.means[0])
        places = torch.arange(sum(self.gradients.sizes)).split(self.gradients.sizes)
        self._shares = torch.zeros_like(self.means)
        self._mixing: list[tuple[slice, SwitchableNorm]] = []
        for layer, place in zip(own, places, strict=True):
            if layer.batch_from is None:
                continue
            first, end = int(place[0]), int(place[-1]) + 1
            self._shares[:, first + layer.batch_from : end] = 1
            if isinstance(layer, SwitchableNorm):
                self._mixing.append((slice(first, end), layer))

    def begin_iteration(self, with_inputs: bool) -> None:
        """Watch what the layers compute, from here to :meth:`end_iteration`.

        Args:
            with_inputs: whether to add the inputs too.
        """
        self.gradients.is_on, self.inputs.is_on = True, with_inputs
        if self.outputs is not None:
            self.outputs.is_on = True

    def end_iteration(self) -> None:
        """Watch no more; with inputs, every rank has to call this."""
        if self.inputs.is_on:
            self.inputs.end_iteration()
        self.gradients.is_on = self.inputs.is_on = False
        if self.outputs is not None:
            self.outputs.is_on = False

    @torch.no_grad()
    def end_step(self, ok: Tensor | None = None) -> None:
        """Move the averages by the images of all ranks since the last step; one collective.

        Args:
            ok: whether the step counts, bool ().
        """
        sums, counts = self.gradients.take()
        if self.outputs is not None:
            curvature, images = self.outputs.take()
            sums = torch.stack((sums[0], curvature))
            counts = torch.stack((counts[0], images))
        packed = torch.stack((sums, counts))
        reducer = group_reducer()
        sums, counts = packed if reducer is None else reducer.sum(packed)
        counted = counts > 0
        if ok is not None:
            counted &= ok
        self.steps = self.steps + counted
        rate = (1 / self.steps.clamp(min=1)).clamp(min=self.momentum)
        moved = self.means + rate * (sums / counts.clamp(min=1) - self.means)
        self.means = torch.where(counted, moved, self.means)

    def drop_step(self) -> None:
        """Forget what was added since the last step, which the optimizer left out."""
        self.gradients.clear()
        if self.outputs is not None:
            self.outputs.clear()

    def end_window(self) -> None:
        """Take ρ from the inputs that were added; channels without any keep theirs."""
        total = self.inputs.total
        self.kurtosis = torch.where(total.count > 0, total.kurtosis(), self.kurtosis)
        self.inputs.clear()

    @torch.no_grad()
    def shares(self) -> Tensor:
        """Return how much of a channel's variance, and of its mean, is the batch's now, (2, ΣC).

        0 in channels without batch statistics, BN's ratio in SN and SSN, else 1.
        """
        shares = self._shares.clone() if self._mixing else self._shares
        for place, layer in self._mixing:
            mean, var = layer.ratios()
            shares[:, place] = torch.stack((var[-1], mean[-1])).to(shares.dtype).unsqueeze(1)
        return shares

    def strength(self, samples: Tensor | float) -> Tensor:
        """Return ζ, (ΣC,): see :func:`normplug.batch_noise.decay_strength`.

        A share w of the batch in σ or μ makes its noise w times as large: w² times the term.

        Args:
            samples: M; or (2, ΣC), that of σ_B and that of μ_B.
        """
        return decay_strength(*self.means, self.kurtosis, *(samples / self.shares().square()))

    def by_layer(self, of_channels: Tensor) -> dict[str, Tensor]:
        """(..., ΣC) as (..., C) by the name of the layer."""
        return dict(zip(self.layers, of_channels.split(self.gradients.sizes, -1), strict=True))

    def state(self) -> dict[str, Any]:
        """Return what a resumed training needs."""
        return {
            'channels': dict(zip(self.layers, self.gradients.sizes, strict=True)),
            'curvature': self.curvature,
            'means': self.means,
            'steps': self.steps,
            'kurtosis': self.kurtosis,
            'inputs': torch.stack(self.inputs.total),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore a :meth:`state` of the same layers."""
        for name in ('means', 'steps', 'kurtosis'):
            setattr(self, name, state[name].to(self.means))
        self.inputs.total = CentralMoments(*state['inputs'].to(self.means))

    def remove(self) -> None:
        """Leave the layers as they were."""
        for part in (self.gradients, self.inputs, self.outputs):
            if part is not None:
                part.remove()


class _SigmoidOutputs:
    """Sums over images of the mean sigmoid of a layer's output, (ΣC,), and their numbers."""

    def __init__(self, layers: list[BaseNorm]) -> None:
        self.is_on = False
        self._seen: list[list[Tensor]] = [[] for _ in layers]
        self._images = [0] * len(layers)
        self._layers = layers
        self._handles = [
            layer.register_forward_hook(HookOfOriginal(self._of_layer(i)))
            for i, layer in enumerate(layers)
        ]

    def _of_layer(self, i: int) -> Callable[[nn.Module, tuple, Tensor], None]:
        @torch.no_grad()
        def add(layer: nn.Module, args: tuple, y: Tensor) -> None:
            if not self.is_on or in_recomputation() or y.numel() == 0:
                return
            self._seen[i].append(mean_sigmoid(y, small_dtype(y)) * y.shape[0])
            self._images[i] += y.shape[0]

        return add

    def take(self) -> tuple[Tensor, Tensor]:
        sums = [
            torch.stack(seen).sum(0) if seen else layer.weight.new_zeros(layer.num_features)
            for seen, layer in zip(self._seen, self._layers, strict=True)
        ]
        images = [torch.full_like(s, n) for s, n in zip(sums, self._images, strict=True)]
        sums, images = torch.cat(sums), torch.cat(images)
        finite = sums.isfinite()
        self.clear()
        return torch.where(finite, sums, 0), torch.where(finite, images, 0)

    def clear(self) -> None:
        self._seen = [[] for _ in self._layers]
        self._images = [0] * len(self._layers)

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()
