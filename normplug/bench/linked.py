"""A norm with the link that training gives it, to be measured without the model around it."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from normplug.norms import BaseNorm
from normplug.ops import normalize_naive

__all__ = ['LinkedLayer']


class LinkedLayer(nn.Module, ABC):
    """The base of layers that are measured with a link.

    Attributes:
        norm: what is measured.
    """

    norm: BaseNorm

    def reference(self, x: Tensor) -> Tensor:
        """The output in plain torch, differentiated step by step."""
        if self.norm.takes_batch_statistics(x):
            return self.in_training(x)
        norm = self.norm
        return normalize_naive(x, norm.plan(x), norm.rule_params(), norm.running())

    @abstractmethod
    def in_training(self, x: Tensor) -> Tensor:
        """:meth:`reference` where the norm takes statistics of the batch."""
