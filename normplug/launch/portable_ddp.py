"""Run data parallelism on devices that torch's SyncBatchNorm and mmengine's defaults refuse."""

from __future__ import annotations

from mmengine.logging import print_log
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import MODEL_WRAPPERS
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from normplug.errors import UserError
from normplug.norms import PortableSyncBN
from normplug.own_code import own_code

__all__ = ['PortableDistributedDataParallel', 'PortableSyncBatchNorm', 'make_sync_bn_portable']


class PortableSyncBatchNorm(PortableSyncBN, _BatchNorm):
    """The class that :func:`make_sync_bn_portable` gives to an ``nn.SyncBatchNorm``.

    Unlike every norm type of this package, it is a ``_BatchNorm``: the user asked for a batch
    norm, and ``norm_eval``, ``norm_decay_mult`` and the like must still apply to it.
    """

    synchronized = True
    # torch built the layer, and torch resets it.
    reset_parameters = _BatchNorm.reset_parameters
    reset_running_stats = _BatchNorm.reset_running_stats


def make_sync_bn_portable(model: nn.Module) -> int:
    """Let every ``nn.SyncBatchNorm`` of ``model`` take tensors of any device, in place.

    The layers stay the same objects with the same parameters, buffers, mode and process group;
    statistics and gradients are those of :class:`normplug.PortableSyncBN`.

    Returns:
        The number of these layers.

    Raises:
        UserError: one of them has no affine parameters or no running statistics, or code of its
            own (a subclass or a parametrized layer). The model is then unchanged.
    """
    layers = {n: m for n, m in model.named_modules() if isinstance(m, nn.SyncBatchNorm)}
    for name, layer in layers.items():
        if not (layer.affine and layer.track_running_stats):
            raise UserError(
                f'{name}: SyncBN with affine=False or track_running_stats=False does not run on '
                "CPUs; use norm_cfg=dict(type='BN') there"
            )
        if own := own_code(layer):
            raise UserError(
                f'{name}: {type(layer).__name__}, a SyncBN, {own}, which would be lost on CPUs, '
                "where torch's SyncBN does not run; use norm_cfg=dict(type='BN') or a norm of "
                'normplug there'
            )
    for layer in layers.values():
        layer.__class__ = PortableSyncBatchNorm
        layer.frozen, layer.batch_from, layer.virtual_batch_size = False, 0, None
    return len(layers)


@MODEL_WRAPPERS.register_module()
class PortableDistributedDataParallel(MMDistributedDataParallel):
    """mmengine's wrapper, which also takes a model on the CPU, SyncBN included.

    On a GPU it is ``MMDistributedDataParallel``. On a CPU it drops ``device_ids``, which mmengine
    always gives and torch accepts for GPUs only, and makes SyncBN portable.

    Args:
        module: the model, on its device.
        device_ids: the GPU of this rank; without effect on a CPU.
        kwargs: of ``MMDistributedDataParallel``.
    """

    def __init__(self, module: nn.Module, device_ids: list[int] | None = None, **kwargs) -> None:
        if next(module.parameters()).device.type == 'cpu':
            device_ids = None
            converted = make_sync_bn_portable(module)
            if converted:
                print_log(
                    f'{converted} SyncBN layers run as PortableSyncBN: torch has SyncBN for GPUs '
                    'only. Same statistics, parameters and names in the checkpoint',
                    'current',
                )
        super().__init__(module, device_ids=device_ids, **kwargs)
