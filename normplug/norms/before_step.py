"""The part of a norm that normalizes, in training, by what it was before the step's update."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from normplug.ops import is_transformed
from normplug.running import Kept, in_recomputation
from normplug.stats import Affine, Moments, standardize

__all__ = ['BeforeStep', 'given_rule']


def given_rule(
    instance: Moments, given: Moments, weight: Tensor, bias: Tensor, *unused: Tensor, eps: float
) -> Affine:
    """Batch norm. An empty batch in training has what :meth:`BeforeStep.given` returns too."""
    return standardize(instance, given, weight, bias, eps)


class BeforeStep:
    """A part of a subclass of :class:`normplug.norms.base.BaseNorm`, named before it.

    The subclass defines :meth:`given`. Activation checkpointing runs a layer a second time, when
    its buffers have moved on: it gets then what the forward had.

    Raises:
        ValueError: activation checkpointing recomputes a forward, and it is not sure which.
    """

    remembers = True

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._kept = Kept()
        self._as_batch_norm = False

    @property
    def is_batch_norm(self) -> bool:
        """Whether training is batch norm's, of the batch alone."""
        return self._as_batch_norm

    def given(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return what the rule takes after γ and β: copies, which the step does not move."""
        raise NotImplementedError

    @contextmanager
    def by_batch(self) -> Iterator[None]:
        """Train as a batch norm within the context."""
        own, self._as_batch_norm = self._as_batch_norm, True
        try:
            yield
        finally:
            self._as_batch_norm = own

    def step_params(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return γ, β and :meth:`given`; in a recomputation, what the forward had of it."""
        if self.is_batch_norm or not self.takes_batch_statistics(x):
            return self.rule_params()
        return self.weight, self.bias, *self._of_forward(x)

    def _of_forward(self, x: Tensor) -> tuple[Tensor, ...]:
        given = self.given(x)  # in a recomputation too, for what the block draws after it
        if torch.compiler.is_compiling() or is_transformed():
            return given
        if not in_recomputation():
            self._kept.put(given, self.weight)
            return given
        kept = self._kept.take()
        self._require(
            kept is not None,
            'activation checkpointing recomputes a forward whose statistics are gone: blocks that '
            'share the layer, another forward in training mode before the backward pass, nested '
            'checkpoints, or a second backward pass; set with_cp=False',
        )
        return kept
