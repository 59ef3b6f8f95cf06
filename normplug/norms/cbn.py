"""Cross-Iteration Batch Normalization: the batch and the last ones, as today's weight has them.

Yao, Cao, Zheng, Huang and Lin, "Cross-Iteration Batch Normalization", CVPR 2021 (arXiv 2002.05712).
With μ and χ the mean of x and of x² over the batch, and those of k past iterations, brought to the
weight w of the convolution before the layer by their derivatives of then,

    μ_i + ∂μ_i/∂w_i · (w − w_i),    χ_i + ∂χ_i/∂w_i · (w − w_i),

the layer normalizes by the averages μ̄ and χ̄ − μ̄². Of each channel those iterations take part whose
χ_i − μ_i² is not negative. The past ones are constants: the gradient goes through the batch's own
μ and χ, by their share. Here variances are kept in place of χ, which comes to the same.
"""

from __future__ import annotations

from functools import partial
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from normplug.filters import observed
from normplug.norms.base import BaseNorm
from normplug.norms.before_step import BeforeStep
from normplug.norms.history import Conv, History, compensated, entry_of
from normplug.norms.linked import Linked
from normplug.ops import Rule, is_exporting, is_transformed, normalize
from normplug.precision import small_dtype
from normplug.running import in_recomputation
from normplug.stats import Affine, Moments, merge, standardize

__all__ = ['CBN', 'ConvolutionLink']


class ConvolutionLink(Protocol):
    """The link of a layer to the convolution before it: see :mod:`normplug.kalman.convolved`.

    Attributes:
        conv: the convolution; None if the layer has none, and is a plain batch norm.
    """

    conv: Conv | None

    def take(self, h: Tensor) -> Tensor:
        """Return the input of which the convolution made ``h`` just now."""


def cbn_rule(
    instance: Moments,
    batch: Moments,
    weight: Tensor,
    bias: Tensor,
    *given: Tensor,
    eps: float,
    eps_inside: bool,
) -> Affine:
    """Batch norm by the average of the batch's moments and those given.

    Args:
        instance, batch, weight, bias: as in any rule.
        given: nothing, for batch norm; a factor () of the variance, for batch norm by the unbiased
            one; or means, variances and whether they count (1 or 0) of K iterations, (K, C).
        eps: see ``eps_inside``.
        eps_inside: divide by sqrt(var + eps); if not, by sqrt(var) + eps.
    """
    if len(given) == 1:
        batch = Moments(batch.mean, batch.var * given[0])
    elif given:
        own = torch.ones_like(batch.mean)
        pairs = zip((*batch, own), given, strict=True)
        mean, var, counts = (torch.cat([now.unsqueeze(0), past]) for now, past in pairs)
        batch, _ = merge(Moments(mean, var), counts)
    if not eps_inside:
        batch, eps = Moments(batch.mean, (batch.var.sqrt() + eps).square()), 0.0
    return standardize(instance, batch, weight, bias, eps)


class CBN(Linked, BeforeStep, BaseNorm):
    """Cross-Iteration Batch Norm for (N, C, *spatial) inputs; for few images per GPU.

    The layers of a model must be linked once before training, by ``KalmanLinkHook`` or
    :func:`normplug.link_kalman`, to the convolution whose output they normalize. A layer for which
    none is found is a plain batch norm, and the log says so. A layer that runs several times in a
    forward is refused: its iterations would mix different inputs. Evaluation is batch norm's, with
    running statistics of the batches alone.

    Each training step costs one more gradient of the convolution's weight. In memory the layer
    holds ``2 · buffer_num`` times the weight. It is in the state dict, once there is something:
    ``history_*``. Each process has its own, of its own batches.

    Args:
        num_features: C.
        eps: see ``eps_inside``.
        momentum: weight of the new batch in the running statistics.
        buffer_num: k, how many past iterations take part beside the batch.
        burnin: how many iterations are batch norm's at first, and not remembered. ITERATIONS: the
            paper and the names of the released configs mean epochs, which the released trainer is
            to multiply by the iterations of one. It does so under another config key only, so that
            the released detectors came to 8 iterations, the default here. A call in training mode
            is an iteration: with gradient accumulation there are several a step.
        eps_inside: divide by sqrt(var + eps), as all norms here do. The release divides by
            sqrt(var) + eps, unless ``out_p=True``.
        released_statistics: during burn-in normalize by the unbiased variance, as released.
        frozen: see :class:`BaseNorm`.

    Raises:
        ValueError: an argument is out of range; activation checkpointing runs the layer a second
            time after one forward, see :class:`BeforeStep`; or a CUDA graph captures training.
        RuntimeError: the input in training is not what the convolution gave.
    """

    __jit_ignored_attributes__ = (*BaseNorm.__jit_ignored_attributes__, 'history')

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        *,
        buffer_num: int = 3,
        burnin: int = 8,
        eps_inside: bool = True,
        released_statistics: bool = False,
        frozen: bool = False,
    ) -> None:
        super().__init__(num_features, eps, momentum, frozen=frozen)
        self._require(
            type(buffer_num) is int and buffer_num > 0,
            f'buffer_num must be a positive integer, got {buffer_num!r}: it is the number of past '
            'iterations; 0 would be batch norm',
        )
        self._require(
            type(burnin) is int and burnin >= 0,
            f'burnin must be a number of iterations (not epochs) of at least 0, got {burnin!r}',
        )
        for name, value in (
            ('eps_inside', eps_inside),
            ('released_statistics', released_statistics),
        ):
            self._require(isinstance(value, bool), f'{name} must be True or False, got {value!r}')
        self.buffer_num, self.burnin = buffer_num, burnin
        self.eps_inside, self.released_statistics = eps_inside, released_statistics
        self.history = History(buffer_num)

    def rule(self, x: Tensor) -> Rule:
        """Return :func:`cbn_rule`."""
        return partial(cbn_rule, eps=self.eps, eps_inside=self.eps_inside)

    def given(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return what the rule takes of the iterations before this one."""
        conv = self.link.conv
        past_burnin = conv is not None and self.history.iterations >= self.burnin
        if past_burnin and self.history.entries:
            past = compensated(self.history.entries, conv)
            # As many rows while the history fills: the same compiled code.
            return tuple(F.pad(t, (0, 0, 0, self.buffer_num - len(t))) for t in past)
        if past_burnin or not self.released_statistics:
            return ()
        count = x.numel() // x.shape[1]
        return (torch.full((), count / max(count - 1, 1), dtype=small_dtype(x), device=x.device),)

    def forward(self, x: Tensor) -> Tensor:
        """Normalize x as :class:`BaseNorm` does; in training, with past iterations."""
        if torch.jit.is_scripting():
            return self.scripted(x)
        else:  # noqa: RET505 (as in BaseNorm)
            if isinstance(x, torch.fx.Proxy) or is_exporting() or self._is_alone():
                return super().forward(x)
            self._check_input(x)
            if self.is_batch_norm or not self.takes_batch_statistics(x):
                return super().forward(x)
            return self._over_iterations(x)

    def _needs_link(self, x: Tensor) -> bool:
        return super()._needs_link(x) and not self.is_batch_norm

    def _is_alone(self) -> bool:
        return self.link is None or self.link.conv is None

    # Not traced by a compiler: what is remembered is no argument.
    @torch.compiler.disable
    def _over_iterations(self, x: Tensor) -> Tensor:
        self._require(
            not (x.is_cuda and torch.cuda.is_current_stream_capturing()),
            'a CUDA graph would repeat the iterations of its capture: train without one',
        )
        taken = self.link.take(x)
        plan = self.plan(x)._replace(filter=observed)  # so that the batch's moments are returned
        params = self.by_instance(self.step_params(x), x, plan)
        y_n, batch = normalize(x, plan, params, self.running(), self.reducer())
        enough = x.numel() > x.shape[1]  # for a variance, and for the running statistics to move
        if enough and not in_recomputation() and not is_transformed():
            if self.history.iterations >= self.burnin:
                self.history.entries.append(entry_of(self.link.conv, taken, x, batch))
            self.history.iterations += 1
        return y_n

    def scripted_ratios(self) -> tuple[Tensor, Tensor]:
        """Batch norm's."""
        return self.of_running()

    def __prepare_scriptable__(self) -> CBN:
        """Return what ``torch.jit.script`` compiles: this layer, if eps is inside the root."""
        self._require(
            self.eps_inside,
            'eps_inside=False has no form for torch.jit.script: use torch.jit.trace',
        )
        return super().__prepare_scriptable__()

    def reset_parameters(self) -> None:
        """Reset to a new layer, which remembers nothing."""
        super().reset_parameters()
        self.history.clear()

    def _apply(self, fn, recurse: bool = True) -> CBN:
        super()._apply(fn, recurse)
        with torch.no_grad():
            self.history.apply(fn)
        return self

    def _save_to_state_dict(self, destination, prefix, keep_vars) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination.update({prefix + name: t for name, t in self.history.state().items()})

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        own = [name for name in History.NAMES if prefix + name in state_dict]
        state = {name: state_dict.pop(prefix + name) for name in own}
        super()._load_from_state_dict(state_dict, prefix, *args)
        if prefix + 'weight' in state_dict:
            # Of a layer built on the meta device, the weight may be another one now.
            self.history.load(state, self.weight)

    def own_names(self) -> tuple[str, ...]:
        """Return nothing: a batch norm's checkpoint lacks only what a training begins without."""
        return ()

    def extra_repr(self) -> str:
        """Return the arguments for ``repr``."""
        inside = '' if self.eps_inside else ', eps_inside=False'
        released = ', released_statistics=True' if self.released_statistics else ''
        own = f'buffer_num={self.buffer_num}, burnin={self.burnin}'
        return f'{super().extra_repr()}, {own}{inside}{released}'
