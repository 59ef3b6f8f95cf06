"""Our norms, and group norm, where mmaction2 knows batch norms alone.

Weights of 2D networks (``pretrained=...``): mmaction2 copies a checkpoint's norms into a 3D
network, or into its own 2D ones, name by name, as those of a batch norm, into layers that are
called ``bn``. So a layer of ours fails if the checkpoint is of batch norms, TSM leaves ratios out,
and a group norm cannot be filled at all. Here our layers load their part of the checkpoint
themselves, as by ``load_state_dict``: they know which tensors they have, and released layouts, and
warn if there are none of their own.

``ResNet3d`` reads ``pretrained`` alone; here ``init_cfg`` with a checkpoint means the same, of
released code too.

TSM's optimizer constructor refuses layers that it does not know. Ours are norms to it.
"""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Callable
from types import ModuleType

from mmengine.registry import WEIGHT_INITIALIZERS
from torch import Tensor, nn

from normplug.checkpoint_file import CheckpointError, few, whitened_layers_in
from normplug.compat.on_import import on_import
from normplug.norms import BaseNorm

__all__ = ['install']


def install() -> None:
    """Change mmaction2's modules once they are imported; calling it again changes nothing."""
    for name, change in _CHANGES.items():
        on_import(f'mmaction.{name}', change)


def _change_resnet3d(module: ModuleType) -> None:
    kind = module.ResNet3d
    _load_own(kind, '_inflate_bn_params')
    kind._init_weights = staticmethod(_by_init_cfg(_norms_as_bn(kind._init_weights)))
    _read_as_torchvision(module)


def _change_resnet(module: ModuleType) -> None:
    _load_own(module.ResNet, '_load_bn_params')
    _change_method(module.ResNet, '_load_torchvision_checkpoint')
    _read_as_torchvision(module)


def _change_x3d(module: ModuleType) -> None:
    _change_method(module.X3D, 'init_weights')


def _change_tsm(module: ModuleType) -> None:
    _read_as_torchvision(module, _of_conv_modules)


def _change_slowfast(module: ModuleType) -> None:
    _read_as_torchvision(module)


def _change_constructor(module: ModuleType) -> None:
    module._BatchNorm = (module._BatchNorm, BaseNorm)  # it asks isinstance, which takes tuples


_CHANGES: dict[str, Callable[[ModuleType], None]] = {
    'models.backbones.resnet': _change_resnet,
    'models.backbones.resnet3d': _change_resnet3d,
    'models.backbones.resnet3d_slowfast': _change_slowfast,
    'models.backbones.resnet_tsm': _change_tsm,
    'models.backbones.x3d': _change_x3d,
    'engine.optimizers.tsm_optim_wrapper_constructor': _change_constructor,
}


def _load_own(kind: type, name: str) -> None:
    """Make a static method that copies a norm's tensors let our layers load them."""
    mmactions = getattr(kind, name)

    @functools.wraps(mmactions)
    def load(norm: nn.Module, state: dict, name: str, loaded: list[str]) -> None:
        if not isinstance(norm, BaseNorm):
            return mmactions(norm, state, name, loaded)
        own = {key: state[f'{name}.{key}'] for key in _below(name, state)}
        if own['weight'].numel() != norm.num_features:  # mmaction2 goes on with the others too
            return warnings.warn(
                f'{name} of the 2D checkpoint has {own["weight"].numel()} channels, its layer '
                f'{norm.num_features}: not loaded',
                stacklevel=2,
            )
        unexpected = norm.load_state_dict(dict(own), strict=False).unexpected_keys
        loaded += [f'{name}.{key}' for key in own if key not in unexpected]
        return None

    setattr(kind, name, staticmethod(load))


def _below(name: str, state: dict) -> list[str]:
    return [key.removeprefix(f'{name}.') for key in state if key.startswith(f'{name}.')]


def _change_method(kind: type, name: str) -> None:
    setattr(kind, name, _norms_as_bn(getattr(kind, name)))


def _norms_as_bn(method: Callable) -> Callable:
    """Give every ConvModule its norm as ``bn`` while ``method`` runs: a group norm is ``gn``."""

    @functools.wraps(method)
    def wrapped(self: nn.Module, *args, **kwargs):
        others = [
            part
            for part in self.modules()
            if getattr(part, 'with_norm', False) and not hasattr(part, 'bn')
        ]
        for part in others:
            vars(part)['bn'] = part.norm  # an attribute, no second entry of the state dict
        try:
            return method(self, *args, **kwargs)
        finally:
            for part in others:
                del vars(part)['bn']

    return wrapped


class _Released(str):
    """A path, with the tensors that an initializer makes of the file."""

    __slots__ = ('state',)


def _by_init_cfg(method: Callable) -> Callable:
    """Let ``init_cfg`` name the checkpoint in place of ``pretrained``."""

    @functools.wraps(method)
    def wrapped(self: nn.Module, pretrained: str | None = None) -> None:
        found = self.init_cfg or []
        found = [found] if isinstance(found, dict) else found
        if not any('checkpoint' in part for part in found):
            return method(self, pretrained)
        if len(found) > 1:
            raise ValueError(
                'init_cfg: mmaction2 fills such a network from one file: keep that entry alone'
            )
        (init_cfg,) = found
        if pretrained or self.pretrained:
            raise ValueError(
                f'pretrained={pretrained or self.pretrained!r} and init_cfg both name a '
                'checkpoint: set one of them to None'
            )
        self.pretrained = _start(init_cfg, self.pretrained2d)
        try:
            return method(self)
        finally:
            self.pretrained = None

    return wrapped


def _start(init_cfg: dict, inflates: bool) -> str:
    """What ``init_cfg`` names, for ``pretrained``."""
    options = {key: value for key, value in init_cfg.items() if key != 'map_location'}
    if options.pop('prefix', None) not in (None, 'backbone', 'backbone.'):
        raise ValueError(
            f'init_cfg.prefix={init_cfg["prefix"]!r}: mmaction2 takes a backbone or what is '
            "below 'backbone.'; save that part to a file of its own"
        )
    initializer = WEIGHT_INITIALIZERS.build(options)
    path = options['checkpoint']
    if not hasattr(initializer, 'backbone_state'):
        if not inflates and init_cfg.get('prefix'):
            raise ValueError(
                'init_cfg.prefix: with pretrained2d=False mmaction2 loads the file as it is; save '
                f'what is below {init_cfg["prefix"]!r} to a file of its own'
            )
        return path
    if not inflates:
        raise ValueError(f'init_cfg: {path} is of a 2D network: set pretrained2d=True')
    path = _Released(path)
    path.state = initializer.backbone_state()
    return path


def _read_as_torchvision(module: ModuleType, rename: Callable[[str], str] = str) -> None:
    """Make the module's reading of checkpoints give names as torchvision's ResNet has them."""
    mmengines = module._load_checkpoint

    @functools.wraps(mmengines)
    def load(filename: str, *args, **kwargs) -> dict[str, Tensor]:
        if isinstance(filename, _Released):
            state = filename.state
        else:
            state = mmengines(filename, *args, **kwargs)
        state = state.get('state_dict', state)
        if whitened := whitened_layers_in(state):
            raise CheckpointError(
                f'{filename} has whitened weights ({few(whitened)}), which mmaction2 would copy as '
                'if they were plain: name the checkpoint of a network without conv_cfg'
            )
        # A whole classifier, as mmpretrain trains it, has more than a backbone.
        prefix = 'backbone.' if any(name.startswith('backbone.') for name in state) else ''
        names = {name: _of_torchvision(name.removeprefix(prefix)) for name in state}
        return {rename(names[name]): value for name, value in state.items()}

    module._load_checkpoint = load


def _of_torchvision(name: str) -> str:
    """The norm of a residual block is ``bn1`` there whatever its type; in mm ``gn1`` if a GN."""
    return re.sub(r'(^|\.)gn(\d\.)', r'\1bn\2', name)


def _of_conv_modules(name: str) -> str:
    """torchvision's name of a tensor of a norm as mmaction2's network has it.

    TSM itself renames those of a batch norm alone.
    """
    name = re.sub(r'(^|\.)bn(\d)\.(\w+)$', r'\1conv\2.bn.\3', name)
    return re.sub(r'\.downsample\.1\.(\w+)$', r'.downsample.bn.\1', name)
