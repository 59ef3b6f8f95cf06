# Mask R-CNN+FPN, 2x schedule, IBN-a/– (in no table), at full scale, from released weights.
_base_ = ['../_base_/rows/mask-rcnn_ibn-a.py', '../_base_/scales/coco_mask-rcnn.py']

# The released ImageNet ResNet50-IBN-a, as it is or converted to our names.
model = dict(
    backbone=dict(
        init_cfg=dict(
            _delete_=True,
            type='ReleasedPretrained',
            checkpoint='checkpoints/resnet50_ibn_a-d9d0bb7b.pth',
        ),
    ),
)
