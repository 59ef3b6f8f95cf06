"""The part of a normalizer that ``torch.jit.script`` compiles: its evaluation."""

import torch
import torch.nn.functional as F
from torch import Tensor

from normplug.ops import normalize_scripted, single_source

__all__ = ['Scripted']


class Scripted:
    """A part of :class:`normplug.norms.base.BaseNorm`; a subclass may have other ratios."""

    # For training; no types of TorchScript.
    __jit_ignored_attributes__ = ('process_group', 'link', 'sample_grad_hooks', '_kept')

    def scripted(self, x: Tensor) -> Tensor:
        """The forward in evaluation, as ``torch.jit.script`` compiles it."""
        if self.training and not self.frozen:
            raise ValueError(
                'a scripted normalizer is in training mode, but can only evaluate: call '
                'model.eval(), and train the model that was scripted'
            )
        if x.dim() < 2 or x.dim() > 5 or x.shape[1] != self.num_features:
            raise ValueError(
                f'a normalizer takes (N, {self.num_features}) or (N, {self.num_features}, '
                f'*spatial) with up to 3 spatial axes, got {x.shape}'
            )
        mean = torch.zeros_like(self.weight)
        var = torch.zeros_like(self.weight)
        if hasattr(self, 'running_mean'):
            padding = [self.num_features - self.running_mean.shape[0], 0]
            mean = F.pad(self.running_mean, padding)
            var = F.pad(self.running_var, padding)
        mean_ratios, var_ratios = self.scripted_ratios()
        return normalize_scripted(
            x,
            self.weight,
            self.bias,
            mean,
            var,
            mean_ratios,
            var_ratios,
            float(self.eps),
            self.scripted_correction(),
        )

    def scripted_ratios(self) -> tuple[Tensor, Tensor]:
        """The rule in evaluation: ``mean_ratios`` and ``var_ratios`` of :func:`normalize_scripted`.

        Each is (3, C) or (3, 1): of the instance's, the layer's and the running moments.
        """
        raise NotImplementedError

    def of_running(self) -> tuple[Tensor, Tensor]:
        """Return the ratios that use the running statistics only, as batch norm does."""
        ratios = single_source(2, self.weight)
        return ratios, ratios

    def scripted_correction(self) -> int:
        """As in :func:`normalize_scripted`."""
        return 0

    def __prepare_scriptable__(self) -> 'Scripted':
        """Return what ``torch.jit.script`` compiles: this layer, if it defines how.

        Raises:
            NotImplementedError: its class has a rule of its own and no ``scripted_ratios``.
        """
        rule, ratios = (
            next(kind for kind in type(self).__mro__ if name in vars(kind))
            for name in ('rule', 'scripted_ratios')
        )
        if not issubclass(ratios, rule):
            raise NotImplementedError(
                f'{rule.__name__} has a rule of its own, which torch.jit.script cannot compile, '
                'and no scripted_ratios that compute the same: write them, or use torch.jit.trace'
            )
        return self
