"""Kalman Normalization: a layer's batch statistics, corrected by what the layers before predict.

Wang, Peng, Luo et al., "Kalman Normalization: Normalizing Internal Representations Across Network
Layers", NIPS 2018, and the slides of Luo, VALSE 2018: with the mini-batch's mean z and variance C,

    predict   μ⁻, Σ⁻ of this layer's input from the posterior μ, Σ of the layers before
    correct   μ = μ⁻ + q (z − μ⁻),    Σ = Σ⁻ + q (C − Σ⁻) + (1 − q) q (z − μ⁻)²

and the layer normalizes by μ and Σ, the moments of a mixture of the prediction and the batch.
"""

from __future__ import annotations

from functools import partial
from math import expm1, log
from numbers import Real
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from normplug.filters import kalman_filter, observed
from normplug.norms.base import BaseNorm, is_number
from normplug.norms.linked import Linked
from normplug.ops import Rule, is_exporting, normalize
from normplug.precision import small_dtype
from normplug.running import in_recomputation
from normplug.stats import Affine, Moments, standardize

__all__ = ['KN', 'KalmanLink', 'SyncKN']

_TRANSITIONS = ('conv', 'sample', 'linear')
_LEARNED_START = 0.9
_NOISE_START = 1e-3


class KalmanLink(Protocol):
    """The link of a layer to those before it: see :mod:`normplug.kalman.links`."""

    is_first: bool

    def predict(self, sampled: bool) -> Moments:
        """Return the predicted moments of the layer's input, (C,) or (groups, C) each."""

    def predecessor(self) -> Moments | None:
        """Return the posterior of the previous layer, if there is exactly one."""

    def post(self, posterior: Moments, size: tuple[int, ...]) -> None:
        """Pass the posterior on."""

    def is_awaited(self) -> bool:
        """Whether a later layer will use the posterior of this one."""


def kn_rule(
    instance: Moments,
    batch: Moments,
    weight: Tensor,
    bias: Tensor,
    *unused: Tensor,
    eps: float,
) -> Affine:
    """Normalize by μ and Σ.

    The learned parameters of the filter are arguments here too. If nothing is filtered (the first
    layer of a chain, an empty batch), they get gradients of 0, because DDP waits for gradients.
    """
    return standardize(instance, batch, weight, bias, eps)


class KN(Linked, BaseNorm):
    """Batch norm with statistics that are filtered along the layers; for 1 or 2 images per GPU.

    The layers of a model must be linked once before training, by ``KalmanLinkHook`` or
    :func:`normplug.link_kalman`. The first layer of a chain, and a layer whose predecessor cannot
    be found, are plain batch norms. Evaluation is that of batch norm, with the running averages of
    the filtered moments.

    Args:
        num_features: C.
        eps: added to Σ.
        momentum: weight of the new batch in the running statistics.
        gain: q in (0, 1), the weight of the batch against the prediction; or 'learned',
            starting at 0.9. The released code has 0.1 for micro-batches and 0.95 for large ones;
            with 0.1 predictions drift off and trainings fail here (docs/micro_batch.md).
        transition: how the posterior becomes the next layer's prediction. 'conv': moments of the
            activation and of the layer's own convolution, in closed form; 'sample': the same from
            one random map a step, as released; 'linear': μ⁻ = e μ, Σ⁻ = e² Σ + r with learned e
            and r ≥ 0 per channel, where one layer of as many channels precedes, and e and r on
            the closed form elsewhere: this project's reading of "optimized in training".
        state: what travels. 'posterior': μ and Σ of the input, before normalization, which is the
            recursion; 'affine': β and γ², an ablation that forgets both.
        limit: the ratio of variances from which on a prediction is not used; infinity for any.
        virtual_batch_size: see :class:`BaseNorm`; each group has its own chain.
        frozen: see :class:`BaseNorm`.

    Attributes:
        gain_logit: (), with gain='learned'.
        transition_weight, transition_noise: e and softplus⁻¹(r), (C,), with transition='linear'.
    """

    _on_foreign_checkpoint = 'It has no learned gain or transition, so they keep initial values.'
    remembers = True

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        *,
        gain: float | str = 0.9,
        transition: str = 'conv',
        state: str = 'posterior',
        limit: float = 100.0,
        virtual_batch_size: int | None = None,
        frozen: bool = False,
    ) -> None:
        super().__init__(
            num_features, eps, momentum, frozen=frozen, virtual_batch_size=virtual_batch_size
        )
        self._require(
            gain == 'learned' or (is_number(gain) and 0 < gain < 1),
            f"gain must lie between 0 and 1, or be 'learned', got {gain!r}: it is the weight of "
            'the batch; 1 would be batch norm',
        )
        self._require(
            transition in _TRANSITIONS,
            f'transition must be one of {", ".join(_TRANSITIONS)}, got {transition!r}',
        )
        self._require(
            not (self.synchronized and transition == 'sample'),
            "transition='sample' draws another map on each rank: use type='KN', or 'conv'",
        )
        self._require(
            state in ('posterior', 'affine'),
            f"state must be 'posterior' or 'affine', got {state!r}",
        )
        self._require(
            isinstance(limit, Real) and limit > 0, f'limit must be positive, got {limit!r}'
        )
        self.gain, self.transition, self.state, self.limit = gain, transition, state, float(limit)
        if gain == 'learned':
            self.add_parameter('gain_logit', (), log(_LEARNED_START / (1 - _LEARNED_START)))
        if transition == 'linear':
            self.add_parameter('transition_weight', (num_features,), 1.0)
            self.add_parameter('transition_noise', (num_features,), log(expm1(_NOISE_START)))

    def rule_params(self) -> tuple[Tensor, ...]:
        """γ, β, and what the filter learns."""
        names = ('gain_logit', 'transition_weight', 'transition_noise')
        return self.weight, self.bias, *(getattr(self, n) for n in names if hasattr(self, n))

    def rule(self, x: Tensor) -> Rule:
        """Return the rule of batch norm, for the filtered moments."""
        return partial(kn_rule, eps=self.eps)

    def forward(self, x: Tensor) -> Tensor:
        """Normalize x as :class:`BaseNorm` does; in training, with what layers before predict."""
        if torch.jit.is_scripting():
            return self.scripted(x)
        else:  # noqa: RET505 (as in BaseNorm)
            if self.link is None or isinstance(x, torch.fx.Proxy) or is_exporting():
                return super().forward(x)
            self._check_input(x)
            live = self.takes_batch_statistics(x)
            if not live and not self.link.is_awaited():
                return super().forward(x)
            return self._filtered(x, live)

    # Not traced by a compiler: states pass between layers, and not as arguments.
    @torch.compiler.disable
    def _filtered(self, x: Tensor, live: bool) -> Tensor:
        if live:
            self._require(
                not (in_recomputation() and (self.link.is_awaited() or not self.link.is_first)),
                'activation checkpointing runs this layer again, when the states of the layers '
                'before are gone: set with_cp=False',
            )
            y_n, posterior = self._corrected(x)
        else:
            y_n = super().forward(x)
            posterior = self._running(x)
        if self.link.is_awaited():
            if self.state == 'affine':
                dtype = posterior.mean.dtype
                own = self.bias.to(dtype), self.weight.to(dtype).square()
                posterior = Moments(*(t.expand_as(posterior.mean) for t in own))
            self.link.post(posterior, tuple(x.shape[2:]))
        return y_n

    def _corrected(self, x: Tensor) -> tuple[Tensor, Moments]:
        plan = self.plan(x)
        inputs, filter = (), observed
        if not self.link.is_first:
            with torch.autocast(x.device.type, enabled=False):
                prior = self._predict()
            self._check_groups(x, prior)
            is_learned = self.gain == 'learned'
            inputs = (*prior, self.gain_logit) if is_learned else prior
            gain = None if is_learned else float(self.gain)
            filter = partial(kalman_filter, gain=gain, limit=self.limit)
        # The posterior is float64, as every prediction that is made of it.
        dtype = small_dtype(x, exact=True)
        plan = plan._replace(filter=filter, filter_inputs=len(inputs), dtype=dtype)
        params = *self.by_instance(self.rule_params(), x, plan), *inputs
        return normalize(x, plan, params, self.running(), self.reducer())

    def _predict(self) -> Moments:
        self._require(
            small_dtype(self.weight, exact=True) == torch.float64,
            f'predictions are computed in float64, which {self.weight.device} does not have: train '
            'on a CPU or an NVIDIA GPU, or use another norm type',
        )
        if self.transition != 'linear':
            return self.link.predict(sampled=self.transition == 'sample')
        before = self.link.predecessor()
        if before is None or before.mean.shape[-1] != self.num_features:
            before = self.link.predict(sampled=False)
        dtype = before.mean.dtype
        e, noise = self.transition_weight.to(dtype), self.transition_noise.to(dtype)
        return Moments(e * before.mean, e.square() * before.var + F.softplus(noise))

    def _check_groups(self, x: Tensor, prior: Moments) -> None:
        group = self.virtual_batch_size
        groups = () if group is None else (x.shape[0] // group,)
        self._require(
            prior.mean.shape[:-1] == groups,
            f'virtual_batch_size={group} is not that of the layers before: give all KN layers of '
            'the model the same',
        )

    def _running(self, x: Tensor) -> Moments:
        """Return the posterior of a layer without batch statistics: the same for each group."""
        dtype = small_dtype(x, exact=True)
        running = self.running_mean.to(dtype), self.running_var.to(dtype)
        group = self.virtual_batch_size
        if group is not None and x.shape[0] > 0 and x.shape[0] % group == 0:
            running = (t.expand(x.shape[0] // group, -1) for t in running)
        return Moments(*running)

    def scripted_ratios(self) -> tuple[Tensor, Tensor]:
        """Batch norm's."""
        return self.of_running()

    def extra_repr(self) -> str:
        """Return the arguments for ``repr``."""
        affine = '' if self.state == 'posterior' else f', state={self.state}'
        return f'{super().extra_repr()}, gain={self.gain}, transition={self.transition}{affine}'


class SyncKN(KN, BaseNorm):
    """KN whose batch statistics are those of all ranks; arguments as :class:`KN`."""

    synchronized = True
