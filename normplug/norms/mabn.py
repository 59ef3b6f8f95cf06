"""Moving Average Batch Normalization: root mean squares, and their gradients, of several batches.

Yan, Wan, Zhang, Zhang, Wei and Sun, "Towards Stabilizing Batch Statistics in Backward Propagation
of Batch Normalization", ICLR 2020: with χ_B the mean of x² over a batch's channel, averaged over
the last k batches to χ, y = γ r x / sqrt(χ + ε) + β. Nothing is centred: convolutions of centred
weights come before it (``conv_cfg=dict(type='CenConv')``). The gradient of batch norm has a second
batch statistic, the mean of ∂L/∂z · z; it too is averaged over the last k batches.
"""

import warnings
from functools import partial

import torch
from torch import Tensor

from normplug.filters import mean_square
from normplug.norms.base import BaseNorm
from normplug.norms.before_step import BeforeStep, given_rule
from normplug.norms.windows import put, with_gradient
from normplug.ops import Plan, Rule, is_exporting, is_transformed, normalize
from normplug.running import Tracked, Tracking, in_recomputation, moved, snapshot, store
from normplug.stats import Affine, Moments

__all__ = ['MABN']

# As released. r, how far the average of a few batches is from that of many, is used later.
_CORRECTED_FROM = 1000
_LARGEST_CORRECTION = 5.0
# In the released layers' state dicts → here.
_RELEASED = {
    'buffer_x2': 'square_window',
    'buffer_gz': 'gradient_window',
    'iters': 'num_batches_tracked',
}


def mabn_rule(
    instance: Moments,
    batch: Moments,
    weight: Tensor,
    bias: Tensor,
    probe: Tensor,
    var: Tensor,
    is_corrected: Tensor,
    *,
    eps: float,
) -> Affine:
    """y = γ r x / sqrt(χ + ε) + β, about the instance mean; r gets no gradient.

    Args:
        instance, weight, bias: as in any rule.
        batch: with χ in place of the variance.
        probe: zeros, (C,), whose gradient is that of χ.
        var: the running mean square before the step, (C,).
        is_corrected: (), 1 where r is used, else 0.
        eps: ε.
    """
    square = batch.var + eps + probe
    r = ((batch.var.detach() + eps) / (var + eps)).sqrt()
    r = torch.where(is_corrected > 0, r.clamp(1 / _LARGEST_CORRECTION, _LARGEST_CORRECTION), 1)
    scale = (weight * r * torch.rsqrt(square)).expand_as(instance.mean)
    return Affine(scale, bias + instance.mean * scale)


class MABN(BeforeStep, BaseNorm):
    """Moving average batch norm for (N, C) and (N, C, *spatial) inputs; for 1 or 2 images per GPU.

    Use it behind convolutions of centred weights, ``conv_cfg=dict(type='CenConv')``.

    The batches before the ``warmup``-th, and at least ``window``, are normalized by their own mean
    square, with its gradient. From then on the gradient is **not** the derivative of the output: it
    has the average over the last batches in place of one statistic of this batch. Derivatives of
    higher order, and those of ``torch.func``, are of the output alone. Evaluation divides by the
    running root mean square. A batch norm's checkpoint loads as the same function in evaluation,
    behind the same convolutions (not ``CenConv``, which centres the checkpoint's), and with the
    warm-up to come. A checkpoint of MABN loads with its windows, to resume from: a new training
    should :meth:`forget` them, as ``NormMemoryHook`` does.

    What is averaged is of the layer's last backward passes: each forward in training should have
    one. A gradient that is NaN or infinite stays out of the average. Under AMP
    ``NormMemoryHook`` sets ``loss_scale``; without it the average is of gradients of each scale.

    Args:
        num_features: C.
        eps: ε, added to the mean square.
        momentum: weight of the new average in the running mean square; the released value.
        window: k, the number of batches to average over. The paper has as many as make 32 images.
        warmup: a number of batches, see above.
        frozen: see :class:`BaseNorm`.

    Attributes:
        square_window: χ_B of the last batches, (k, C).
        gradient_window: the means of ∂L/∂z · z of the last backward passes, (k, C).
        loss_scale: the factor of the loss in this iteration, (); None for 1. ``gradient_window`` is
            kept without it.
        running_mean: zeros.
        running_var: the running mean square.

    Raises:
        ValueError: an argument is out of range; or activation checkpointing runs the layer a
            second time after one forward, see :class:`BeforeStep`.
    """

    _on_foreign_checkpoint = (
        'Its running mean went into bias, running_var and weight: behind the same convolutions '
        'evaluation is the same. But training centres nothing, which needs '
        "conv_cfg=dict(type='CenConv'), and that changes what the checkpoint's convolutions "
        'compute: with it, train from scratch or from a checkpoint of MABN.'
    )
    centred = False

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.02,
        *,
        window: int = 16,
        warmup: int = 100,
        frozen: bool = False,
    ) -> None:
        super().__init__(num_features, eps, momentum, frozen=frozen)
        self._require(
            type(window) is int and window > 0,
            f'window must be a number of batches, an integer from 1, got {window!r}',
        )
        self._require(
            type(warmup) is int and warmup >= 0,
            f'warmup must be a number of batches, an integer from 0, got {warmup!r}',
        )
        self.window, self.warmup = window, warmup
        self.loss_scale: Tensor | None = None
        self.add_state('square_window', (window, num_features), 0.0)
        self.add_state('gradient_window', (window, num_features), 0.0)

    def rule(self, x: Tensor) -> Rule:
        """Return :func:`mabn_rule` in training; else batch norm's, of a running mean of 0."""
        live = self.takes_batch_statistics(x) and not is_exporting()
        return partial(mabn_rule if live else given_rule, eps=self.eps)

    def plan(self, x: Tensor) -> Plan:
        """The averages of mean squares in place of the batch's variances."""
        plan = super().plan(x)
        if plan.batch_from is None:
            return plan
        return plan._replace(filter=mean_square, filter_inputs=2)

    def rule_params(self) -> tuple[Tensor, ...]:
        """γ and β; in training, with a probe that is not watched, also what is given now."""
        if not (self.training and self.moves_statistics):
            return self.weight, self.bias
        return self.weight, self.bias, *self._in_order(self.given())

    def _in_order(self, given: tuple[Tensor, ...], probe: Tensor | None = None) -> tuple:
        var, corrected, squares, share, _, _ = given
        probe = torch.zeros_like(squares) if probe is None else probe
        return probe, var, corrected, squares, share

    def tracking(self, x: Tensor) -> Tracking:
        """As the mean squares of single values too: one is enough."""
        return Tracking(self.momentum, unbiased=False, pooled=True)

    def forward(self, x: Tensor) -> Tensor:
        """Normalize x as :class:`BaseNorm` does; in training, by the last batches."""
        if torch.jit.is_scripting():
            return self.scripted(x)
        else:  # noqa: RET505 (as in BaseNorm)
            if isinstance(x, torch.fx.Proxy) or is_exporting():
                return super().forward(x)
            self._check_input(x)
            if not self.takes_batch_statistics(x):
                return super().forward(x)
            return self._averaged(x)

    def given(self, x: Tensor | None = None) -> tuple[Tensor, ...]:
        """What the step takes of the time before it.

        The running mean square, (C,); whether r is used, (); the sum of the other χ_B over k, (C,),
        and the share of this batch's, (C,); the sum of the other gradients, (C,); and this batch's
        place in the windows, ().
        """
        _, var, number = snapshot(self.running())
        number = number + 1
        place = number % self.window
        others = (torch.arange(self.window, device=place.device) != place).unsqueeze(1)
        alone = (number <= self.window) | (number < self.warmup) | self.is_batch_norm
        squares, gradients = (
            torch.where(others & ~alone, t, 0).sum(0)
            for t in (self.square_window, self.gradient_window)
        )
        if self.loss_scale is not None:
            gradients = gradients * self.loss_scale.to(gradients)
        share = torch.where(alone, torch.ones_like(squares), 1 / self.window)
        corrected = (number > max(_CORRECTED_FROM, self.warmup)) & ~alone
        return var, corrected.to(var.dtype), squares / self.window, share, gradients, place

    # Not traced by a compiler: what a backward pass finds is no result of the layer.
    @torch.compiler.disable
    def _averaged(self, x: Tensor) -> Tensor:
        plan = self.plan(x)._replace(tracking=None)
        given = self.given(x) if self.is_batch_norm else self.step_params(x)[2:]
        others, place = given[-2:]
        probe = torch.zeros_like(others, dtype=plan.dtype)
        watches = (
            any(t.requires_grad for t in (x, self.weight, self.bias))
            and torch.is_grad_enabled()
            and not (is_transformed() or self.is_batch_norm)
        )
        if watches:
            probe.requires_grad_()
        own = self.by_instance((self.weight, self.bias), x, plan)
        params = *own, *self._in_order(given, probe)
        y, (square, average) = normalize(x, plan, params, self.running())
        count = x.numel() // self.num_features
        if not in_recomputation():
            self._store(place, square.detach(), average.detach(), count, x)
        if watches:
            half = (average.detach() + self.eps) * (-2 / count)
            probe.register_hook(partial(self._store_gradient, place, half))
            y = with_gradient(y, average, others.to(plan.dtype) / half)
        return y

    @torch.no_grad()
    def _store(self, place: Tensor, square: Tensor, average: Tensor, count: int, x: Tensor) -> None:
        """Put χ_B into its window, and move the running mean square towards the average."""
        tracked = self.running()
        values = moved(
            tracked, self.tracking(x), Moments(torch.zeros_like(average), average), count
        )
        is_counted = values.num_batches > tracked.num_batches
        put(self.square_window, place, square, is_counted)
        store(tracked, Tracked(*values))

    @torch.no_grad()
    def _store_gradient(self, place: Tensor, half: Tensor, grad: Tensor) -> None:
        """Put the mean of ∂L/∂z · z into its window; ``grad`` is the gradient of χ."""
        grad = grad.detach()
        if self.loss_scale is not None:
            grad = grad / self.loss_scale.to(grad)
        put(self.gradient_window, place, grad * half, (grad.sum() * 0) == 0)

    def scripted_ratios(self) -> tuple[Tensor, Tensor]:
        """Batch norm's."""
        return self.of_running()

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        """Accept the released names; make of a batch norm the same function of its mean square."""
        for name, ours in _RELEASED.items():
            if prefix + name in state_dict:
                state_dict[prefix + ours] = state_dict.pop(prefix + name)
        names = [prefix + name for name in ('weight', 'bias', 'running_mean', 'running_var')]
        if prefix + 'square_window' in state_dict:
            state_dict.setdefault(names[2], torch.zeros_like(self.running_mean))
            self._fit_windows(state_dict, prefix)
        elif all(name in state_dict for name in names):
            weight, bias, mean, var = [state_dict[name].double() for name in names]
            scale = weight * torch.rsqrt(var + self.eps)
            square = var + mean.square()
            found = scale * (square + self.eps).sqrt(), bias - scale * mean, mean * 0, square
            for name, value in zip(names, found, strict=True):
                state_dict[name] = value.to(state_dict[name].dtype)
            # The windows are empty: the warm-up is to come.
            state_dict[prefix + 'num_batches_tracked'] = torch.zeros_like(self.num_batches_tracked)
        super()._load_from_state_dict(state_dict, prefix, *args)

    @torch.no_grad()
    def forget(self) -> None:
        """Empty the windows; the warm-up begins anew."""
        for state in (self.square_window, self.gradient_window, self.num_batches_tracked):
            state.zero_()

    def _fit_windows(self, state_dict: dict[str, Tensor], prefix: str) -> None:
        found = state_dict[prefix + 'square_window']
        if found.shape == self.square_window.shape:
            return
        for name in ('square_window', 'gradient_window', 'num_batches_tracked'):
            state_dict[prefix + name] = torch.zeros_like(getattr(self, name))
        warnings.warn(
            f'MABN: the checkpoint has windows of {len(found)} batches, and norm_cfg window='
            f'{self.window}: they start empty, with another warm-up. The rest is used.',
            stacklevel=4,
        )

    def extra_repr(self) -> str:
        """Return the arguments for ``repr``."""
        return f'{super().extra_repr()}, window={self.window}, warmup={self.warmup}'
