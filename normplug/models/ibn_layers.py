"""The norms of IBN-Net for any ``norm_cfg``.

Pan, Luo, Shi and Tang, "Two at Once: Enhancing Learning and Generalization Capacities via IBN-Net",
ECCV 2018, figures 3 and 4. Instance norm is the IBN layer of ratio 1: affine, without running
statistics.
"""

import torch
from mmcv.cnn import build_norm_layer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from normplug.models.isw_layer import ISW
from normplug.norms import PortableSyncBN
from normplug.own_code import own_code

__all__ = ['HalfInstanceNorm', 'ParallelNorm', 'half_instance_norm', 'instance_norm']
__all__ += ['selective_whitening']


def instance_norm(channels: int, norm_cfg: dict) -> nn.Module:
    """Instance norm of all channels, with the ``eps`` and the freezing of ``norm_cfg``."""
    shared = {key: norm_cfg[key] for key in ('eps', 'requires_grad', 'frozen') if key in norm_cfg}
    return build_norm_layer({'type': 'IBN', 'ratio': 1, **shared}, channels)[1]


def selective_whitening(channels: int, norm_cfg: dict) -> ISW:
    """Instance norm without affine, for ``ISWHook``, with the ``eps`` of ``norm_cfg``."""
    return ISW(channels, **{key: norm_cfg[key] for key in ('eps',) if key in norm_cfg})


def half_instance_norm(channels: int, norm_cfg: dict) -> nn.Module:
    """Instance norm of the first half of the channels, ``norm_cfg`` of the others.

    If ``norm_cfg`` is exactly a batch norm, the result is one IBN layer, synchronized if the batch
    norm is.
    """
    half = channels // 2
    other = build_norm_layer(norm_cfg, channels - half)[1]
    if own_code(other):  # kept as it is
        return HalfInstanceNorm(instance_norm(half, norm_cfg), other)
    if isinstance(other, (nn.SyncBatchNorm, PortableSyncBN)):
        return build_norm_layer({**norm_cfg, 'type': 'SyncIBN'}, channels)[1]
    if isinstance(other, _BatchNorm):
        return build_norm_layer({**norm_cfg, 'type': 'IBN'}, channels)[1]
    return HalfInstanceNorm(instance_norm(half, norm_cfg), other)


class HalfInstanceNorm(nn.Module):
    """One norm for the first channels, another for the rest: (N, C, H, W) → the same.

    Its state dict has the names of the released IBN layer, ``IN.*`` and ``BN.*``, for any norms.
    The state dict of a single norm over all channels loads too: each part takes its channels.

    Args:
        first: norm of the first ``first.num_features`` channels.
        other: norm of the other channels; ``nn.Identity()`` for none.
    """

    def __init__(self, first: nn.Module, other: nn.Module) -> None:
        super().__init__()
        self.IN = first
        self.BN = other

    def forward(self, x: Tensor) -> Tensor:
        """Normalize x by channel."""
        half = self.IN.num_features
        return torch.cat([self.IN(x[:, :half]), self.BN(x[:, half:])], dim=1)

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        """Split the tensors of a single norm."""
        half = self.IN.num_features
        if prefix + 'weight' in state_dict:
            for name in ('weight', 'bias'):
                whole = state_dict.pop(prefix + name)
                state_dict[f'{prefix}IN.{name}'] = whole[:half]
                state_dict[f'{prefix}BN.{name}'] = whole[half:]
            for name, own in self.BN.named_buffers():
                whole = state_dict.pop(prefix + name, None)
                if whole is not None:  # of all channels, or an IBN layer's of the other half
                    taken = whole if own.dim() == 0 else whole[len(whole) - len(own) :]
                    state_dict[f'{prefix}BN.{name}'] = taken
        super()._load_from_state_dict(state_dict, prefix, *args)


class ParallelNorm(nn.Module):
    """Two norms of the same input side by side: (N, C, H, W) → (N, 2C, H, W)."""

    def __init__(self, first: nn.Module, other: nn.Module) -> None:
        super().__init__()
        self.IN = first
        self.BN = other

    def forward(self, x: Tensor) -> Tensor:
        """Normalize x in both ways."""
        return torch.cat([self.IN(x), self.BN(x)], dim=1)
