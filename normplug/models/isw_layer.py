"""The place of instance selective whitening: instance norm without affine, with a mask.

Choi et al., "RobustNet", CVPR 2021. The loss is in :mod:`normplug.isw`; ``ISWHook`` adds it to the
model's and finds the mask.
"""

import torch

from normplug.norms.ibn import IBN

__all__ = ['ISW']


class ISW(IBN):
    """Instance norm of (N, C, *spatial) inputs, without affine parameters.

    Args:
        num_features: C.
        eps: added to the variances.

    Attributes:
        mask: the pairs of channels whose correlation the loss takes, bool, (C, C), true above the
            diagonal only. Empty until ``ISWHook`` has found it.
    """

    _on_foreign_checkpoint = 'Nothing of it is used: these have no parameters.'

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__(num_features, eps, ratio=1, frozen=True)
        self._non_persistent_buffers_set.update(('weight', 'bias'))  # 1 and 0
        self.add_state('mask', (num_features, num_features), 0, torch.bool)

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        """Take the mask alone, and warn if there is more: it is another norm's."""
        others = [key for key in state_dict if key.startswith(prefix) and key != prefix + 'mask']
        for name in others:
            del state_dict[name]
        if others:
            self._warn_of_foreign_checkpoint()
        super()._load_from_state_dict(state_dict, prefix, *args)
