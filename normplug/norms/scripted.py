"""What ``torch.jit.script`` compiles of a normalizer: its evaluation."""

import torch
import torch.nn.functional as F
from torch import Tensor

from normplug.ops import normalize_scripted, single_source

__all__ = ['Scripted']


class Scripted:
    """A part of :class:`normplug.norms.base.BaseNorm`; a subclass may have other ratios."""

    __jit_ignored_attributes__ = ('process_group', 'link')  # for training; no type of TorchScript

    def scripted(self, x: Tensor) -> Tensor:
        """The forward in evaluation, as ``torch.jit.script`` compiles it."""
        if self.training and not self.frozen:
            raise ValueError(
                'a scripted normalizer is in training mode, and it only evaluates: call '
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
        """What :func:`normalize_scripted` mixes, by default the running statistics alone."""
        ratios = single_source(2, self.weight)
        return ratios, ratios

    def scripted_correction(self) -> int:
        """As in :func:`normalize_scripted`."""
        return 0
