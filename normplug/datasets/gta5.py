"""GTA5, "Playing for Data" (Richter et al., ECCV 2016), with the 19 classes of Cityscapes."""

from collections.abc import Sequence

from mmseg.datasets import BaseSegDataset, CityscapesDataset
from mmseg.registry import DATASETS

from .label_ids import LABEL_IDS, NUM_LABEL_IDS

__all__ = ['GTA5Dataset']

_IGNORED = 255


@DATASETS.register_module()
class GTA5Dataset(BaseSegDataset):
    """``images/00001.png`` and ``labels/00001.png``, as they were released.

    The released maps are palette PNGs of Cityscapes' label ids. They are read as such. The 19
    evaluated classes become train ids; the others are ignored.

    Args:
        ann_file: list of names (``00001``), one a line, below ``data_root``: a part of the released
            split; ``python -m normplug.datasets.gta5_split`` writes the three. All images if empty.
        kwargs: arguments of mmseg's BaseSegDataset.

    Raises:
        ValueError: ``ann_file`` is not such a list, or the classes differ.
    """

    METAINFO = CityscapesDataset.METAINFO

    def __init__(
        self, ann_file: str = '', img_suffix: str = '.png', seg_map_suffix: str = '.png', **kwargs
    ) -> None:
        if ann_file.endswith('.mat'):
            raise ValueError(
                f'ann_file {ann_file}: GTA5Dataset takes a list of names; write those of the '
                'released split by `python -m normplug.datasets.gta5_split SPLIT.MAT`, and set '
                "ann_file='train.txt'"
            )
        super().__init__(
            ann_file=ann_file, img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs
        )

    @classmethod
    def get_label_map(cls, new_classes: Sequence[str] | None = None) -> dict[int, int]:
        """Label id → train id, or 255 for what is not evaluated; mmseg applies it on loading."""
        if new_classes is not None and tuple(new_classes) != cls.METAINFO['classes']:
            raise ValueError(
                'GTA5Dataset has the 19 classes of Cityscapes; drop metainfo.classes, got '
                f'{tuple(new_classes)}'
            )
        return dict.fromkeys(range(NUM_LABEL_IDS), _IGNORED) | {
            label_id: train_id for train_id, label_id in enumerate(LABEL_IDS)
        }
