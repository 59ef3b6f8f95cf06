"""Population Normalization: batch norm by statistics of the population, with noise by choice.

Luo, Wang, Shao and Peng, "Towards Understanding Regularization in Batch Normalization", ICLR 2019
(arXiv 1809.00846): with μ_P and σ_P of the population, ĥ = γ (h − μ_P) / σ_P + β is batch norm
without the noise of its batch statistics. The paper does not say how μ_P and σ_P are found: a slow
running average, the guard and the warm-up are this project's.
"""

from functools import partial
from math import isfinite

import torch
from torch import Tensor

from normplug.batch_noise import MIN_DEVIATION, std_of_mean, std_of_std
from normplug.dist import randn_of_rank
from normplug.norms.base import BaseNorm, is_number
from normplug.norms.before_step import BeforeStep, given_rule
from normplug.ops import Rule, per_instance
from normplug.running import Tracking, snapshot
from normplug.stats import Affine, Moments, standardize

__all__ = ['PN', 'SyncPN']

# What is of the batch: its mean, and its variance.
_NOISE = {'none': (False, False), 'mean': (True, False), 'var': (False, True), 'both': (True, True)}
_POPULATIONS = ('running', 'estimated')


def pn_rule(
    instance: Moments,
    batch: Moments,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    warming: Tensor,
    *drawn: Tensor,
    eps: float,
    noise: str,
    samples: float | None,
    limit: float,
    group: int | None,
) -> Affine:
    """Normalize by the population, except for the statistics that are noisy.

    Args:
        instance, batch, weight, bias: as in any rule.
        mean, var: μ_P and σ_P², (C,).
        warming: (), 1 while the batch's own statistics are used, else 0.
        drawn: with ``samples``, standard normal numbers for μ_B and for σ_B, where the noise has
            them, (C,) or (groups, C) each; then, for σ_B, the excess kurtosis, (C,).
        eps, noise, samples, limit: as in :class:`PN`.
        group: instances of a group of ``drawn``.
    """
    mean_is_noisy, var_is_noisy = _NOISE[noise]
    if samples is None:
        by_mean = batch.mean if mean_is_noisy else mean
        by_var = batch.var if var_is_noisy else var
    else:
        by_mean, by_var, std, numbers = mean, var, var.sqrt(), iter(drawn)
        if mean_is_noisy:
            by_mean = mean + std_of_mean(std, samples) * per_instance(next(numbers), group)
        if var_is_noisy:
            number = per_instance(next(numbers), group)
            of_batch = std + std_of_std(std, next(numbers), samples) * number
            by_var = torch.maximum(of_batch, MIN_DEVIATION * std).square()
    spread = batch.var + (batch.mean - mean).square()
    if group is not None:
        spread = spread.mean(0)  # of all images: how far one group scatters says nothing
    own = (warming > 0) | (spread > limit * (var + eps))
    if var_is_noisy and samples is None:  # h − μ_P has no bound in units of such a σ_B
        own = own | (batch.var < MIN_DEVIATION**2 * var)
    by = Moments(torch.where(own, batch.mean, by_mean), torch.where(own, batch.var, by_var))
    return standardize(instance, by, weight, bias, eps)


class PN(BeforeStep, BaseNorm):
    """Batch norm by population statistics in training too, with the noise of a batch by choice.

    In evaluation it is batch norm, and its state dict is a batch norm's, in both directions. In
    training, the statistics *before* the step's update are what it normalizes by, as constants:
    they get no gradient. The running variance is that of all values, so also between the means of
    batches; batch norm's, an average of the variances of batches, is far too small at one image.

    The first ``warmup`` batches are normalized by their own statistics, with gradient, as in batch
    norm; running statistics are those of all their values, as long as that is faster than
    ``momentum``.
    A checkpoint that counts at least ``warmup`` batches has them behind it.

    Training on running statistics can diverge: a step that makes activations grow is not undone by
    the statistics, which follow too late. So where, in a channel, the batch's mean square about μ_P
    (over all virtual batches) is more than ``limit`` (σ_P² + eps), that batch is normalized by its
    own statistics there, with gradient. Likewise with noise='var' of the batch, where σ_B is below
    σ_P/10.

    Args:
        num_features: C.
        eps: added to the variance.
        momentum: weight of the new batch in the running statistics; a slow one, because training
            follows them.
        noise: which statistics are noisy: 'none'; 'mean', μ_B with σ_P; 'var', σ_B with μ_P;
            'both'. Without ``samples`` they are those of the batch, with gradient, and 'both' is
            batch norm: without population, warm-up or guard.
        samples: M, at least 1, to draw them in place of that: μ_B ~ N(μ_P, σ_P²/M) and
            σ_B ~ N(σ_P, σ_P²(ρ + 2)/(4M)), at least σ_P/10, in each step, for each channel (and
            each virtual batch), without gradient. The numbers come from torch's default generator
            of x's device; ranks draw their own.
        population: where μ_P and σ_P come from. 'running': the running averages. 'estimated':
            :class:`normplug.hooks.PopulationHook` estimates them now and then; in between they do
            not move.
        warmup: number of batches; 0 to start from the mean 0 and variance 1 of a new layer.
        limit: of the guard; infinity for none.
        virtual_batch_size, frozen: see :class:`BaseNorm`.

    Attributes:
        kurtosis: ρ, (C,), excess kurtosis, with ``samples`` and a noisy variance. 0, a Gaussian's,
            unless ``PopulationHook`` estimates it.
        is_estimated: whether something estimates the population; with population='estimated' it
            has to. The hook sets it; so does a training loop that calls
            :func:`normplug.population.estimate_population` by itself.

    Raises:
        ValueError: an argument is out of range; nothing estimates the population; or activation
            checkpointing runs the layer a second time after one forward (see docs/batch_noise.md).
    """

    _on_foreign_checkpoint = (
        'It has no kurtosis, which stays 0, that of a Gaussian, until PopulationHook estimates it.'
    )

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.01,
        *,
        noise: str = 'none',
        samples: float | None = None,
        population: str = 'running',
        warmup: int = 100,
        limit: float = 2.0,
        virtual_batch_size: int | None = None,
        frozen: bool = False,
    ) -> None:
        super().__init__(
            num_features, eps, momentum, frozen=frozen, virtual_batch_size=virtual_batch_size
        )
        self._require(
            noise in tuple(_NOISE), f'noise must be one of {", ".join(_NOISE)}, got {noise!r}'
        )
        self._require(
            samples is None or (is_number(samples) and samples >= 1 and isfinite(samples)),
            'samples, the M of the noise that is drawn, must be a number of at least 1, or None '
            f"for the batch's own noise, got {samples!r}",
        )
        self._require(
            samples is None or noise != 'none',
            f"samples={samples!r} draws noise, and noise='none' has none: set noise to 'mean', "
            "'var' or 'both', or remove samples",
        )
        self._require(
            population in _POPULATIONS,
            f'population must be one of {", ".join(_POPULATIONS)}, got {population!r}',
        )
        self._require(
            type(warmup) is int and warmup >= 0,
            f'warmup must be a number of batches, an integer from 0, got {warmup!r}',
        )
        self._require(
            is_number(limit) and limit > 1,
            'limit must be greater than 1 (at 1 the guard would act on ordinary batches), or '
            f"float('inf') for no guard, got {limit!r}",
        )
        self.noise, self.population, self.warmup = noise, population, warmup
        self.samples = None if samples is None else float(samples)
        self.limit = float(limit)
        self._require(
            population == 'running' or not self.is_batch_norm,
            "noise='both' without samples is batch norm, which uses no population: remove "
            f'population={population!r}',
        )
        self.is_estimated = False
        if samples is not None and _NOISE[noise][1]:
            self.add_state('kurtosis', (num_features,), 0.0)

    @property
    def is_batch_norm(self) -> bool:
        """Whether training is batch norm's, and no population is used."""
        return self._as_batch_norm or (self.noise == 'both' and self.samples is None)

    @property
    def needs_estimates(self) -> bool:
        """Whether training uses a population that has to be estimated."""
        return self.population == 'estimated' and self.moves_statistics

    def rule(self, x: Tensor) -> Rule:
        """Return batch norm's in evaluation, else :func:`pn_rule`."""
        if self.is_batch_norm or not self.takes_batch_statistics(x):
            return partial(given_rule, eps=self.eps)
        options = {'noise': self.noise, 'samples': self.samples, 'limit': self.limit}
        return partial(pn_rule, eps=self.eps, group=self.virtual_batch_size, **options)

    def rule_params(self) -> tuple[Tensor, ...]:
        """γ and β; in training, the population as it is now. Not what is drawn."""
        if self.is_batch_norm or not (self.training and self.moves_statistics):
            return self.weight, self.bias
        return self.weight, self.bias, *self._now()

    def drawn(self, x: Tensor) -> tuple[Tensor, ...]:
        """Draw standard normal numbers for the noise of a step; with them, the kurtosis."""
        if self.samples is None:
            return ()
        group = self.virtual_batch_size
        groups = () if group is None else (x.shape[0] // group,)
        number = sum(_NOISE[self.noise])
        numbers = [randn_of_rank(*groups, x.shape[1], device=x.device) for _ in range(number)]
        return (*numbers, self.kurtosis.clone()) if hasattr(self, 'kurtosis') else tuple(numbers)

    def tracking(self, x: Tensor) -> Tracking:
        """Return how running statistics follow the batches: see the class."""
        if self.is_batch_norm:
            return super().tracking(x)
        momentum = self.momentum if self.population == 'running' else 0.0
        return Tracking(momentum, unbiased=False, warmup=float(self.warmup), pooled=True)

    def _now(self) -> tuple[Tensor, ...]:
        """Mean, variance and whether the layer is warming up, apart from the buffers that move."""
        mean, var, number = snapshot(self.running())
        return mean, var, (number < self.warmup).to(mean.dtype)

    def given(self, x: Tensor) -> tuple[Tensor, ...]:
        """:meth:`_now` and :meth:`drawn`."""
        self._require(
            self.is_estimated or not self.needs_estimates,
            "population='estimated', and nothing estimates it: add custom_hooks="
            "[dict(type='PopulationHook')] to the config, or use population='running'",
        )
        return *self._now(), *self.drawn(x)

    def scripted_ratios(self) -> tuple[Tensor, Tensor]:
        """Batch norm's."""
        return self.of_running()

    def extra_repr(self) -> str:
        """Return the arguments for ``repr``."""
        noise = self.noise if self.samples is None else f'{self.noise}, samples={self.samples:g}'
        population = f'population={self.population}, warmup={self.warmup}, limit={self.limit:g}'
        return f'{super().extra_repr()}, noise={noise}, {population}'


class SyncPN(PN, BaseNorm):
    """PN whose batch statistics are those of all ranks; arguments as :class:`PN`.

    Population statistics are the same on all ranks; each rank draws noise of its own.
    """

    synchronized = True
