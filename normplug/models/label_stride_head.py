"""mmseg's FCN head with its loss at the resolution of the logits."""

from mmseg.models.decode_heads import FCNHead
from mmseg.utils import SampleList
from torch import Tensor

__all__ = ['LabelStrideFCNHead']


class LabelStrideFCNHead(FCNHead):
    """``FCNHead`` trained on every ``label_stride``-th label in both directions.

    mmseg scales the logits to the size of the labels for its loss. With a stride as large as the
    network's and images padded to a multiple of it, nothing is scaled, and the loss is that of the
    released code of Switchable Normalization for ADE20K, which scales the labels down by 8
    (nearest). Predictions are as ``FCNHead`` makes them.

    Args:
        label_stride: the stride, from 1.
        kwargs: those of ``FCNHead``.

    Raises:
        ValueError: ``label_stride`` is not a whole number from 1.
    """

    def __init__(self, *args, label_stride: int, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if not isinstance(label_stride, int) or label_stride < 1:
            raise ValueError(f'label_stride must be a whole number from 1, got {label_stride!r}')
        self.label_stride = label_stride

    def _stack_batch_gt(self, batch_data_samples: SampleList) -> Tensor:
        # (N, 1, H, W), as F.interpolate's "nearest" takes it from a multiple of the stride.
        labels = super()._stack_batch_gt(batch_data_samples)
        return labels[..., :: self.label_stride, :: self.label_stride]
