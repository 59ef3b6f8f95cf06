"""Choose which normalizer each layer of a model has.

The types are registered in mmengine's root registry as functions, because the packages whose
models they build are optional: each is imported when the first of its models is built.
"""

from mmengine.registry import MODELS

from normplug.models.cen_conv import CenConv2d
from normplug.models.head_types import dropout_linear_cls_head, label_stride_fcn_head
from normplug.models.ibn_types import ibn_resnet, ibn_resnet_v1c, ibn_resnet_v1d
from normplug.models.placement import norm_placement, place_norms

__all__ = ['CenConv2d', 'place_norms']

for _name, _build in {
    'DropoutLinearClsHead': dropout_linear_cls_head,
    'IBNResNet': ibn_resnet,
    'IBNResNetV1c': ibn_resnet_v1c,
    'IBNResNetV1d': ibn_resnet_v1d,
    'LabelStrideFCNHead': label_stride_fcn_head,
    'NormPlacement': norm_placement,
}.items():
    MODELS.register_module(name=_name, module=_build)
