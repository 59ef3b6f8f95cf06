"""Batch-Channel Norm: batch norm, then group norm of what it gives, in one pass.

Qiao, Wang, Liu, Shen and Yuille, "Rethinking Normalization and Elimination Singularity in Neural
Networks" (arXiv 1911.09738): batch norm with γ and β of each channel, then group norm
with a weight and a bias of each group. Batch norm is one map for all pixels of a channel,
x ↦ a (x − μ_B) + β with a = γ / sqrt(σ²_B + ε), so that the moments of what it gives are those of
its input, mapped; no pixel has to be read again.
"""

from functools import partial

from torch import Tensor

from normplug.filters import follow
from normplug.norms.base import BaseNorm, is_number
from normplug.norms.before_step import BeforeStep
from normplug.norms.grouped import Grouped
from normplug.ops import Plan, Rule
from normplug.running import Tracking, snapshot
from normplug.stats import Affine, Moments, pool, standardize

__all__ = ['BCN', 'EstBCN', 'SyncBCN']

# The batch norm within the released layer: in its README, and in the networks for ImageNet.
_RELEASED_BATCH_NORMS = ('bn', 'pbn')


def bcn_rule(
    instance: Moments,
    batch: Moments,
    weight: Tensor,
    bias: Tensor,
    group_weight: Tensor,
    group_bias: Tensor,
    *unused: Tensor,
    eps: float,
) -> Affine:
    """Batch norm and group norm, one map after the other.

    Args:
        instance, batch, weight, bias: as in any rule; γ and β are batch norm's.
        group_weight, group_bias: of the group norm, (G,).
        unused: of an empty batch of EstBCN in training, what its filter is given.
        eps: added to the variances of both.
    """
    by_batch = standardize(instance, batch, weight, bias, eps)
    groups = group_weight.numel()
    # At the instance mean batch norm gives its offset, which is so the mean of its output.
    given = Moments(by_batch.offset, by_batch.scale.square() * instance.var)
    given = Moments(*(t.unflatten(1, (groups, -1)) for t in given))
    own = group_weight.unsqueeze(-1), group_bias.unsqueeze(-1)
    scale, offset = standardize(given, pool(given, 2, keepdim=True), *own, eps)
    return Affine(by_batch.scale * scale.flatten(1), offset.flatten(1))


class BCN(Grouped, BaseNorm):
    """Batch-Channel Norm for (N, C) and (N, C, *spatial) inputs.

    The paper uses it behind convolutions with weight standardization: ``conv_cfg=dict(
    type='ConvWS')`` of mmcv.

    Args:
        num_features: C.
        eps: added to the variances of both norms.
        momentum: weight of the new batch in the running statistics.
        num_groups: G, which must divide C, and is C where that is less. A group of one channel is
            normalized as by instance norm, which undoes the bias, and of the weight all but the
            sign.
        frozen, virtual_batch_size: see :class:`BaseNorm`.

    Attributes:
        weight, bias: of the batch norm, (C,), so that its checkpoints load by name.
        group_weight, group_bias: of the group norm, (G,).

    Raises:
        ValueError: an argument is out of range, or does not divide the channels, by name.
    """

    _on_foreign_checkpoint = (
        'It has no group_weight and group_bias, which stay as they are; the rest is used, and '
        'normalized once more by groups, so that the activations will change.'
    )

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        *,
        num_groups: int = 32,
        frozen: bool = False,
        virtual_batch_size: int | None = None,
    ) -> None:
        super().__init__(
            num_features, eps, momentum, frozen=frozen, virtual_batch_size=virtual_batch_size
        )
        self.num_groups = self._divisor('num_groups', num_groups)
        self.add_parameter('group_weight', (self.num_groups,), 1.0)
        self.add_parameter('group_bias', (self.num_groups,), 0.0)

    def rule(self, x: Tensor) -> Rule:
        """Batch norm, then group norm."""
        return partial(bcn_rule, eps=self.eps)

    def rule_params(self) -> tuple[Tensor, ...]:
        """γ and β of the channels, then of the groups."""
        return self.weight, self.bias, self.group_weight, self.group_bias

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        """Accept the released layouts: a batch norm, and groups of (1, G, 1)."""
        for below in (f'{prefix}{name}.' for name in _RELEASED_BATCH_NORMS):
            if f'{below}weight' not in state_dict:
                continue
            for name in ('weight', 'bias'):
                group = state_dict.pop(prefix + name, None)
                if group is not None:
                    state_dict[f'{prefix}group_{name}'] = group
            for name in [name for name in state_dict if name.startswith(below)]:
                state_dict[prefix + name.removeprefix(below)] = state_dict.pop(name)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        """Return the arguments for ``repr``."""
        return f'{super().extra_repr()}, num_groups={self.num_groups}'


class SyncBCN(BCN, BaseNorm):
    """BCN whose batch statistics are those of all ranks; arguments as :class:`BCN`."""

    synchronized = True


class EstBCN(BeforeStep, BCN, BaseNorm):
    """BCN whose batch norm normalizes by moving estimates in training too; for micro-batches.

    Each step first moves the running statistics towards the batch, by ``speed``, and then
    normalizes by them. They are constants for the gradient. At a speed of 0 it is a frozen batch
    norm. The paper's schedule of the speed is not released: it stays as it is set.

    Args:
        speed: the weight of the batch in the running statistics, from 0 to 1.
        num_features, eps, num_groups, frozen, virtual_batch_size: see :class:`BCN`.
        momentum: has no effect, but for None: then it is BCN, whose running statistics are the
            average of all batches, which ``torch.optim.swa_utils.update_bn`` makes of it.

    Attributes:
        speed: (), of now; a checkpoint's is taken, with a warning where it is another.

    Raises:
        ValueError: an argument is out of range; or activation checkpointing runs the layer a
            second time after one forward, see :class:`BeforeStep`.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        *,
        num_groups: int = 32,
        speed: float = 0.01,
        frozen: bool = False,
        virtual_batch_size: int | None = None,
    ) -> None:
        super().__init__(
            num_features,
            eps,
            momentum,
            num_groups=num_groups,
            frozen=frozen,
            virtual_batch_size=virtual_batch_size,
        )
        self._require(
            is_number(speed) and 0 <= speed <= 1,
            f'speed, the weight of the batch in the estimates, must lie in [0, 1], got {speed!r}',
        )
        self.add_state('speed', (), float(speed))

    @property
    def is_batch_norm(self) -> bool:
        """Whether training is BCN's, of the batch."""
        return self._as_batch_norm or self.momentum is None

    def plan(self, x: Tensor) -> Plan:
        """BCN's, of the estimates in place of the batch."""
        plan = super().plan(x)
        if plan.batch_from is None or self.is_batch_norm:
            return plan
        return plan._replace(filter=follow, filter_inputs=3)

    def tracking(self, x: Tensor) -> Tracking:
        """The running statistics become what the step normalizes by."""
        return super().tracking(x) if self.is_batch_norm else Tracking(1.0, unbiased=False)

    def given(self, x: Tensor | None = None) -> tuple[Tensor, ...]:
        """The running statistics and the speed."""
        mean, var, _ = snapshot(self.running())
        return mean, var, self.speed.clone()

    def rule_params(self) -> tuple[Tensor, ...]:
        """BCN's; in training also what is given now."""
        own = super().rule_params()
        if self.is_batch_norm or not (self.training and self.moves_statistics):
            return own
        return *own, *self.given()

    def step_params(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return BCN's and :meth:`given`; in a recomputation, the forward's."""
        own = super().rule_params()
        if self.is_batch_norm or not self.takes_batch_statistics(x):
            return own
        return *own, *self._of_forward(x)

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        self.warn_of_other_values(state_dict, prefix, 'speed')
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        """Return the arguments for ``repr``."""
        return f'{super().extra_repr()}, speed={self._initial["speed"]:g}'
