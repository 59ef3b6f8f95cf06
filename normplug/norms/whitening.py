"""The base of the normalizers that whiten blocks of channels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from normplug.covariance import Covariances
from normplug.norms.base import BaseNorm
from normplug.norms.grouped import Grouped
from normplug.ops import Blocks, Plan
from normplug.running import Tracked

__all__ = ['WhiteningNorm']


class WhiteningNorm(Grouped, BaseNorm):
    """A normalizer whose rule maps means and covariances of blocks of channels to a linear map.

    A subclass defines :meth:`rule`, with the arguments and result said in
    :class:`normplug.ops.Blocks`, and :meth:`block_size`.

    Args:
        num_features: C.
        eps: added to the diagonal of the covariance.
        momentum: weight of the new batch in the running statistics.
        T: number of Newton's iterations, 1 to 16: part of the definition, see
            :func:`normplug.covariance.inverse_root`.
        frozen: see :class:`BaseNorm`.

    Attributes:
        matrix_name: of the running statistic beside the mean, (C / d, d, d), initially the
            identity: of the biased covariance, or of the whitening matrix if ``averages_roots``.
        width: channels of a row of a block: see :class:`normplug.ops.Blocks`.
        running_mean: (C,), initially 0.
        num_batches_tracked: (), int64.

    Raises:
        ValueError: an argument is out of range, or does not divide the channels, by name.
    """

    matrix_name = 'running_cov'
    averages_roots = False
    width = 1

    def __init__(
        self, num_features: int, eps: float, momentum: float | None, T: int, *, frozen: bool
    ) -> None:
        super().__init__(num_features, eps, momentum, frozen=frozen)
        self._require(
            type(T) is int and 0 < T <= 16,
            f"T, the number of Newton's iterations, must be an integer from 1 to 16, got {T!r}",
        )
        self.T = T
        self.size = self.block_size()

    def register_sample_grad_hook(self, hook: Callable) -> RemovableHandle:
        """Refuse: the rule takes one γ for all instances."""
        self._require(
            False, 'a whitening layer has no gradients of its weight by image: use another type'
        )

    def block_size(self) -> int:
        """Return d, the number of channels in a block, which divides C."""
        raise NotImplementedError

    def add_running_spread(self) -> None:
        """Register the running matrices."""
        size = self.block_size()
        shape = self.num_features // size, size, size
        self.add_state(self.matrix_name, shape, torch.eye(size, device='cpu').tolist())

    def plan(self, x: Tensor) -> Plan:
        """What is computed of x, in training or in evaluation."""
        root = (self.eps, self.T) if self.averages_roots else None
        return super().plan(x)._replace(blocks=Blocks(self.size, self.width, root))

    def running(self) -> Tracked | None:
        """The running statistics, if there are any."""
        if self.batch_from is None:
            return None
        matrix = getattr(self, self.matrix_name)
        return Tracked(self.running_mean, matrix, self.num_batches_tracked)

    def mixes_instances(self) -> bool:
        """Whether evaluation uses statistics of its input, not the running ones alone."""
        return True

    def evaluation(self) -> tuple[Tensor, Tensor]:
        """The map y = matrix · x + offset of a layer in evaluation mode, in float64.

        Returns:
            ``matrix``, (C / d, d, d), and ``offset``, (C / d, d).

        Raises:
            ValueError: it does mix in instances.
        """
        self._require(
            not self.mixes_instances(), 'evaluation depends on the statistics of its input'
        )
        at_zero = self.weight.new_zeros((1, self.num_features), dtype=torch.float64)
        plan, mean = self.plan(at_zero), at_zero.view(1, -1, self.size)
        instance = Covariances(mean, mean.new_zeros((*mean.shape, self.size)))
        of_running, matrix = (t.double() for t in self.running()[:2])
        running = Covariances(of_running.view(mean.shape[1:]), matrix)
        params = (p.double() for p in self.rule_params())
        matrix, scale, offset = plan.rule(instance, running, *params, pixels=1)
        return (scale * matrix)[0], offset[0].squeeze(-1)

    def tracks_unbiased(self, x: Tensor) -> bool:
        """The covariance is kept as it is, as published."""
        return False

    def extra_repr(self) -> str:
        """Arguments, with the size of a block."""
        return f'{super().extra_repr()}, T={self.T}, {self._blocks_repr()}'

    def _blocks_repr(self) -> str:
        return f'{self.num_features // self.size} blocks of {self.size} channels'
