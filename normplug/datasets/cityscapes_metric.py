"""mmseg's IoU with predictions in the form of the test server of Cityscapes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.logging import print_log
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS
from PIL import Image

from normplug.errors import TrainingError

from .label_ids import LABEL_IDS

__all__ = ['CityscapesIoUMetric']


@METRICS.register_module()
class CityscapesIoUMetric(IoUMetric):
    """IoUMetric for models of train ids, which writes label ids.

    mmseg's CityscapesMetric does so too, but needs ``cityscapesscripts``.

    Args:
        output_dir: folder for one PNG per image, of the same name and size; ``tools/test.py --out``
            sets it.
        format_only: only write, for images without labels.
        kwargs: the other arguments of IoUMetric.

    Raises:
        TrainingError: ``format_only`` is set, but there is no ``output_dir``.
    """

    def __init__(self, output_dir: str | None = None, format_only: bool = False, **kwargs) -> None:
        if format_only and not output_dir:
            raise TrainingError(
                'CityscapesIoUMetric with format_only=True only writes, but has no output_dir; '
                'name the folder: tools/test.py --out FOLDER'
            )
        # IoUMetric would write train ids.
        super().__init__(output_dir=None, format_only=format_only, **kwargs)
        self.folder = output_dir and Path(output_dir)
        if self.folder:
            self.folder.mkdir(parents=True, exist_ok=True)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Score and write a batch of predictions."""
        super().process(data_batch, data_samples)
        if self.folder is None:
            return
        label_ids = np.array(LABEL_IDS, np.uint8)
        for sample in data_samples:
            train_ids = sample['pred_sem_seg']['data'].squeeze().cpu().numpy()
            name = f'{Path(sample["img_path"]).stem}.png'
            Image.fromarray(label_ids[train_ids]).save(self.folder / name)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Return the scores of IoUMetric; none with ``format_only``."""
        if self.format_only:
            print_log(f'label ids are in {self.folder}', logger='current')
            return {}
        return super().compute_metrics(results)
