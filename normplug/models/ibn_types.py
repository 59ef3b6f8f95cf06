"""``type='IBNResNet'`` → the class for the package that the config is for."""

from importlib import import_module

from mmengine.registry import DefaultScope
from torch import nn

__all__ = ['ibn_resnet', 'ibn_resnet_v1c', 'ibn_resnet_v1d']

_MODULES = {
    'mmdet': 'normplug.models.mmdet_resnet',
    'mmseg': 'normplug.models.mmseg_resnet',
    'mmpretrain': 'normplug.models.mmpretrain_resnet',
}


def ibn_resnet(**kwargs) -> nn.Module:
    """Build the scope's ResNet with IBN; see :class:`normplug.models.ibn_resnet.IBNStages`."""
    return _build('IBNResNet', kwargs)


def ibn_resnet_v1c(**kwargs) -> nn.Module:
    """Build the same with a stem of three 3x3 convolutions."""
    return _build('IBNResNetV1c', kwargs)


def ibn_resnet_v1d(**kwargs) -> nn.Module:
    """Build the same with that stem and average pooling in the shortcuts."""
    return _build('IBNResNetV1d', kwargs)


def _build(name: str, kwargs: dict) -> nn.Module:
    scope = DefaultScope.get_current_instance()
    scope = scope and scope.scope_name
    if scope == 'mmaction':
        raise ValueError(
            f"type='{name}' is for {', '.join(_MODULES)}, not for mmaction. IBN-Net-a in 3D is "
            "dict(type='NormPlacement', model_type='ResNet3d', norms=[dict("
            "where='layer[1-3].*.conv1.bn', norm_cfg=dict(type='IBN'))]); the other entries of "
            "ibn_cfg have no place in mmaction2's blocks"
        )
    if scope not in _MODULES:
        raise ValueError(
            f"type='{name}' is there for {', '.join(_MODULES)}, but the default scope is "
            f"{scope or 'not set'}: choose one of them, as in dict(type='{name}', _scope_='mmdet')"
        )
    return getattr(import_module(_MODULES[scope]), name)(**kwargs)
