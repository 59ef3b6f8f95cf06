"""IBN-Net: ResNets with instance statistics in some of their norms.

Pan, Luo, Shi and Tang, "Two at Once: Enhancing Learning and Generalization Capacities via IBN-Net",
ECCV 2018, section 3.3 and figures 3 and 4; a and b are placed as in the released code.
"""

from typing import ClassVar

from mmcv.cnn import build_conv_layer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from normplug.models.ibn_layers import (
    HalfInstanceNorm,
    ParallelNorm,
    half_instance_norm,
    instance_norm,
    selective_whitening,
)
from normplug.norms import IBN

__all__ = ['IBNStages', 'NormAfterAddition']

# What normalizes the stem, and the sum of a stage's last block.
_WHOLE = {'b': instance_norm, 'isw': selective_whitening}


class NormAfterAddition:
    """Mixin for the residual blocks of mm's ResNets: a norm between the addition and the ReLU.

    Attributes:
        IN: that norm, under its released name; None for a plain block, until a stage sets it.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.register_module('IN', None)

    def forward(self, x: Tensor) -> Tensor:
        """Run the forward of the block, with the norm."""
        if self.IN is None:
            return super().forward(x)
        if self.with_cp and x.requires_grad:
            out = checkpoint(self._normalized_sum, x, use_reentrant=False)
        else:
            out = self._normalized_sum(x)
        return self.relu(out)

    def _normalized_sum(self, x: Tensor) -> Tensor:
        out = x
        last = 3 if hasattr(self, 'conv3') else 2
        for i in range(1, last + 1):
            out = getattr(self, f'norm{i}')(getattr(self, f'conv{i}')(out))
            if i < last:
                out = self.relu(out)
            if getattr(self, 'with_plugins', False):
                out = self.forward_plugin(out, getattr(self, f'after_conv{i}_plugin_names'))
        if hasattr(self, 'drop_path'):
            out = self.drop_path(out)
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.IN(out + shortcut)


class IBNStages:
    """Mixin for mm's ResNets: IBN-Net by stage.

    An entry of ``ibn_cfg`` is

    * ``'a'``: IBN in place of the first norm of every block;
    * ``'b'``: instance norm after the addition of the last block. For the first stage also in
      place of the stem's norm, the last of a deep stem's three;
    * ``'c'``: instance norm and the plain norm side by side after the first convolution of every
      block; the second convolution takes both;
    * ``'d'``: as b, but with instance norm of half of the channels; the others are not normalized.
      The stem stays plain;
    * ``'isw'``: as b, for instance selective whitening: without affine parameters, and with the
      masks that ``ISWHook`` finds;
    * ``None``: a plain stage.

    The other half of the channels of a, and every other norm, follow ``norm_cfg``.

    Args:
        ibn_cfg: one entry for each stage. IBN-Net-a is ``('a', 'a', 'a', None)``, IBN-Net-b
            ``('b', 'b', None, None)``.
        kwargs: the arguments of the package's ResNet.

    Raises:
        ValueError: ``ibn_cfg`` has the wrong length or an unknown entry, or does not fit the depth
            or another argument.
    """

    blocks_with_norm: ClassVar[dict[type, type]]  # a package's block → the one that can carry b

    def __init__(self, *, ibn_cfg=('a', 'a', 'a', None), **kwargs) -> None:
        self._check(ibn_cfg, **kwargs)
        self.ibn_cfg = tuple(ibn_cfg)
        super().__init__(**kwargs)

    def make_res_layer(self, *, block: type, **kwargs) -> nn.Sequential:
        """Build a stage, with the norms of its entry in ``ibn_cfg``."""
        entry = self.ibn_cfg[len(self.res_layers)]
        if entry in ('b', 'd', 'isw'):
            stage = super().make_res_layer(block=self.blocks_with_norm[block], **kwargs)
            self._add_after_addition(stage[-1], entry)
            return stage
        stage = super().make_res_layer(block=block, **kwargs)
        if entry is not None:
            for each in stage:
                (self._mix_first if entry == 'a' else self._double_first)(each)
        return stage

    def train(self, mode: bool = True) -> nn.Module:
        """Set the mode; ``norm_eval`` applies to the IBN layers too."""
        super().train(mode)
        if mode and self.norm_eval and any(isinstance(m, _BatchNorm) for m in self.modules()):
            for module in self.modules():
                if isinstance(module, IBN):
                    module.eval()
        return self

    def _make_stem_layer(self, in_channels: int, stem_channels: int) -> None:
        super()._make_stem_layer(in_channels, stem_channels)
        if self.ibn_cfg[0] not in _WHOLE:
            return
        norm = _WHOLE[self.ibn_cfg[0]](stem_channels, self.norm_cfg)
        if not self.deep_stem:
            setattr(self, self.norm1_name, norm)
        elif hasattr(self.stem[-1], 'norm_name'):  # mmpretrain's stem is of ConvModules
            setattr(self.stem[-1], self.stem[-1].norm_name, norm)
        else:
            self.stem[-2] = norm

    def _mix_first(self, block: nn.Module) -> None:
        norm = half_instance_norm(block.conv1.out_channels, self.norm_cfg)
        setattr(block, block.norm1_name, norm)

    def _double_first(self, block: nn.Module) -> None:
        channels, old = block.conv1.out_channels, block.conv2
        norm = ParallelNorm(instance_norm(channels, self.norm_cfg), block.norm1)
        setattr(block, block.norm1_name, norm)
        geometry = {k: getattr(old, k) for k in ('kernel_size', 'stride', 'padding', 'dilation')}
        block.conv2 = build_conv_layer(
            self.conv_cfg, 2 * channels, old.out_channels, **geometry, bias=False
        )

    def _add_after_addition(self, block: nn.Module, entry: str) -> None:
        channels = getattr(block, 'conv3', block.conv2).out_channels
        if entry in _WHOLE:
            block.IN = _WHOLE[entry](channels, self.norm_cfg)
        else:
            half = instance_norm(channels // 2, self.norm_cfg)
            block.IN = HalfInstanceNorm(half, nn.Identity())

    def _check(
        self, ibn_cfg, *, depth=None, num_stages=4, dcn=None, stage_with_dcn=(), plugins=None, **_
    ) -> None:
        if depth not in self.arch_settings:
            raise ValueError(
                f'backbone.depth must be one of {", ".join(map(str, self.arch_settings))} for '
                f'backbone.ibn_cfg, got {depth!r}'
            )
        if not isinstance(ibn_cfg, (list, tuple)) or len(ibn_cfg) != num_stages:
            raise ValueError(
                f'backbone.ibn_cfg must have one entry for each of the {num_stages} stages, as '
                f"('a', 'a', 'a', None) has; got {ibn_cfg!r}"
            )
        for i, entry in enumerate(ibn_cfg):
            if entry not in ('a', 'b', 'c', 'd', 'isw', None):
                raise ValueError(
                    f"backbone.ibn_cfg.{i} must be 'a', 'b', 'c', 'd', 'isw' or None, got {entry!r}"
                )
            deformable = dcn is not None and any(stage_with_dcn[i : i + 1])
            if entry == 'c' and (deformable or plugins):
                raise ValueError(
                    f"backbone.ibn_cfg.{i} is 'c', which doubles the channels between the first "
                    f'two convolutions; backbone.{"dcn" if deformable else "plugins"} does not '
                    "allow for that: drop it, or choose 'a', 'b' or 'd'"
                )
