"""``type='DropoutLinearClsHead'`` → the class, which needs mmpretrain."""

from torch import nn

__all__ = ['dropout_linear_cls_head']


def dropout_linear_cls_head(**kwargs) -> nn.Module:
    """Build :class:`normplug.models.dropout_head.DropoutLinearClsHead`."""
    from normplug.models.dropout_head import DropoutLinearClsHead

    return DropoutLinearClsHead(**kwargs)
