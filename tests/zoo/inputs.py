"""Batches as the dataloaders of mmdet, mmseg and mmpretrain give them."""

import torch
from mmengine.structures import PixelData


def detection(size: int, classes: int, with_mask: bool, low: int, high: int, stride: int) -> dict:
    """Two images of 3 boxes each, and label maps of classes from `low` to below `high`."""
    from mmdet.testing import demo_mm_inputs

    batch = demo_mm_inputs(
        2, [(3, size, size)] * 2, [3, 3], classes, with_mask=with_mask, use_box_type=True
    )
    for sample in batch['data_samples']:
        labels = torch.randint(low, high, (1, size // stride, size // stride), dtype=torch.uint8)
        sample.gt_sem_seg = PixelData(sem_seg=labels)
        sample.set_metainfo(dict(scale_factor=(1.0, 1.0)))
    return batch


def segmentation(size: int, classes: int) -> dict:
    """Two images with label maps, and the edges that PIDNet learns."""
    from mmseg.structures import SegDataSample

    shape = dict(img_shape=(size, size), ori_shape=(size, size), pad_shape=(size, size))
    samples = []
    for _ in range(2):
        labels = torch.randint(0, classes, (1, size, size))
        edges = torch.randint(0, 2, (1, size, size))
        sample = SegDataSample(metainfo=shape)
        sample.set_data(dict(gt_sem_seg=PixelData(data=labels), gt_edge_map=PixelData(data=edges)))
        samples.append(sample)
    return dict(inputs=_images(size), data_samples=samples)


def classification(size: int, classes: int) -> dict:
    """Four images of a class each."""
    from mmpretrain.structures import DataSample

    labels = torch.randint(0, classes, (4,)).tolist()
    samples = [DataSample(img_shape=(size, size)).set_gt_label(label) for label in labels]
    return dict(inputs=torch.stack(_images(size) * 2), data_samples=samples)


def _images(size: int) -> list[torch.Tensor]:
    return [torch.randint(0, 256, (3, size, size), dtype=torch.uint8) for _ in range(2)]
