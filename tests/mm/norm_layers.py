"""Build models of the mm packages with a norm_cfg, and tell which norm sits at which layer."""

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from normplug import NORMS, BaseNorm
from tests.cases import FIXED_STATE

SCOPES = ('mmdet', 'mmseg', 'mmpretrain')

all_types = pytest.mark.parametrize('norm_type', sorted(NORMS))
# Enough where mm asks for batch norms by their class, which test_it_is_no_batch_norm shows that no
# type has: the one that is nearest to them, and another.
two_types = pytest.mark.parametrize('norm_type', ['PortableSyncBN', 'SN'])
all_scopes = pytest.mark.parametrize('scope', SCOPES)

_NORMS = (BaseNorm, _BatchNorm, _InstanceNorm, nn.GroupNorm, nn.LayerNorm)


def norm_layers(model: nn.Module) -> dict[str, str]:
    """Module name → class name, of every normalization layer whatever its origin."""
    return {name: type(m).__name__ for name, m in model.named_modules() if isinstance(m, _NORMS)}


def own_layers(model: nn.Module) -> dict[str, BaseNorm]:
    """Module name → layer, of the normalizers of this package."""
    return {name: m for name, m in model.named_modules() if isinstance(m, BaseNorm)}


def build(cfg: dict, scope: str) -> nn.Module:
    """Build a model's config as a runner with ``default_scope = scope`` does.

    The test is skipped where the package `scope` is not installed.
    """
    pytest.importorskip(scope)
    with DefaultScope.overwrite_default_scope(scope):
        return MODELS.build(cfg)


def resnet(norm_cfg: dict, scope: str = 'mmdet', **options) -> nn.Module:
    """A ResNet-18 of 8 base channels; mm's own defaults for all but the norm."""
    options = {'type': 'ResNet', 'depth': 18, 'base_channels': 8, 'stem_channels': 8, **options}
    return build(dict(norm_cfg=norm_cfg, **options), scope)


def image(batch: int = 2, size: int = 64, seed: int = 0) -> torch.Tensor:
    """Images of normally distributed pixels, (N, 3, size, size)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, size, size, generator=generator)


def randomize(model: nn.Module, seed: int = 0) -> nn.Module:
    """Draw every norm's weight, bias and other parameters at random, off their neutral start.

    Gives the model back in training mode (mm's own ``train`` gives nothing back).
    """
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, _NORMS):
            for name, tensor in module.state_dict(keep_vars=True).items():
                if name not in FIXED_STATE and not name.startswith(('running', 'num_')):
                    noise = torch.randn(tensor.shape, generator=generator)
                    tensor.data.copy_(0.1 * noise if name == 'bias' else 1 + 0.2 * noise)
    model.train()
    return model


def buffers_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of all buffers."""
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def has_counted(layer: BaseNorm, number: int) -> bool:
    """Whether the layer has recorded so many batches, if it records any."""
    return layer.batch_from is None or layer.num_batches_tracked == number


def of_batch_norm(state: dict, norm_type: str) -> set[str]:
    """The names in a batch norm network's state that one of another norm has too."""
    own = NORMS[norm_type](4).state_dict()
    return {name for name in state if name.rpartition('.')[2] in own}


def assert_unchanged(model: nn.Module, before: dict[str, torch.Tensor]) -> None:
    """Every buffer is bit for bit what :func:`buffers_of` saw."""
    after = dict(model.named_buffers())
    assert after.keys() == before.keys()
    for name, buffer in after.items():
        assert torch.equal(buffer, before[name]), name
