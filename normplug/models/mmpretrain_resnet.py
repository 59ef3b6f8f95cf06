"""IBN-Net on the ResNets of mmpretrain, which this module imports."""

from mmpretrain.models.backbones.resnet import BasicBlock, Bottleneck, ResNet, ResNetV1c, ResNetV1d
from mmpretrain.registry import MODELS

from normplug.models.ibn_resnet import IBNStages, NormAfterAddition

__all__ = ['IBNResNet', 'IBNResNetV1c', 'IBNResNetV1d']


class IBNBasicBlock(NormAfterAddition, BasicBlock):
    """Two convolutions, and a norm after the addition."""


class IBNBottleneck(NormAfterAddition, Bottleneck):
    """Three convolutions, and a norm after the addition."""


_BLOCKS = {BasicBlock: IBNBasicBlock, Bottleneck: IBNBottleneck}


@MODELS.register_module()
class IBNResNet(IBNStages, ResNet):
    """ResNet with IBN by stage; arguments of :class:`IBNStages` and of mmpretrain's ResNet."""

    blocks_with_norm = _BLOCKS


@MODELS.register_module()
class IBNResNetV1c(IBNStages, ResNetV1c):
    """ResNetV1c with IBN by stage."""

    blocks_with_norm = _BLOCKS


@MODELS.register_module()
class IBNResNetV1d(IBNStages, ResNetV1d):
    """ResNetV1d with IBN by stage."""

    blocks_with_norm = _BLOCKS
