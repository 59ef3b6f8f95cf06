"""``type='DropoutLinearClsHead'`` and others → the classes, which need mmpretrain and mmseg."""

from torch import nn

__all__ = ['dropout_linear_cls_head', 'label_stride_fcn_head']


def dropout_linear_cls_head(**kwargs) -> nn.Module:
    """Build :class:`normplug.models.dropout_head.DropoutLinearClsHead`."""
    from normplug.models.dropout_head import DropoutLinearClsHead

    return DropoutLinearClsHead(**kwargs)


def label_stride_fcn_head(**kwargs) -> nn.Module:
    """Build :class:`normplug.models.label_stride_head.LabelStrideFCNHead`."""
    from normplug.models.label_stride_head import LabelStrideFCNHead

    return LabelStrideFCNHead(**kwargs)
