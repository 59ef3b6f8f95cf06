"""``init_cfg=dict(type='ReleasedPretrained', checkpoint=...)`` loads a released file as it is."""

from __future__ import annotations

from mmengine.logging import print_log
from mmengine.model import update_init_info
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import Tensor, nn

from .convert import Conversion, convert
from .fit import check_fit, check_network
from .source import read

__all__ = ['ReleasedPretrained']


@WEIGHT_INITIALIZERS.register_module()
class ReleasedPretrained:
    """Fill a ResNet, or mmpretrain's classifier with one, from a released checkpoint.

    Unlike ``Pretrained`` it converts names and shapes, and it is an error if a tensor of the module
    is not filled. It also takes files that ``tools/convert_checkpoint.py`` wrote.

    Args:
        checkpoint: the file, or an address that mmengine can load.
    """

    def __init__(self, checkpoint: str) -> None:
        self.checkpoint = checkpoint

    def __call__(self, module: nn.Module) -> None:
        """Load the checkpoint into ``module`` and log what was done.

        Raises:
            CheckpointError: see :meth:`convert`.
        """
        conversion = self.convert(module)
        module.load_state_dict(conversion.state, strict=False)
        print_log(str(conversion.report), logger='current')
        for part in module.modules():
            # mmengine initializes the parts after the whole, and mmpretrain's ResNet zeroes the
            # last norm of each block, unless this tells them that it is done.
            part.is_init = True
        module.init_cfg = {'type': 'Pretrained', 'checkpoint': self.checkpoint}
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=f'ReleasedPretrained: load from {self.checkpoint}')

    def convert(self, module: nn.Module, whose: str = 'the model') -> Conversion:
        """Return the checkpoint as ``module`` takes it; the module is left as it is.

        Args:
            module: what is to be filled.
            whose: its config key, for the message.

        Raises:
            CheckpointError: the file is missing, broken, of another depth or normalizer, or no
                released one.
        """
        source = read(self.checkpoint)
        is_classifier = any(name.startswith('backbone.') for name in module.state_dict())
        conversion = convert(source, 'classifier' if is_classifier else 'backbone')
        check_network(conversion.network, getattr(module, 'backbone', module), source.path, whose)
        conversion.report.unused += check_fit(conversion.state, module, conversion.report, whose)
        return conversion

    def backbone_state(self) -> dict[str, Tensor]:
        """Return the tensors of a 2D backbone by torchvision's names, for what inflates them.

        Raises:
            CheckpointError: the file is missing, broken, or no released one.
        """
        return convert(read(self.checkpoint), 'backbone').state
