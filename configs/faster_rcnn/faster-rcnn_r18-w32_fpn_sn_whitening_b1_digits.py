# Detector of the table of whitening, SN at 1 image a batch.
_base_ = ['../_base_/rows/whitening_sn.py', '../_base_/scales/digits_whitening_faster-rcnn_b1.py']

# Without batch statistics, as all rows of SN at 1 image, and from such a pretraining.
model = dict(
    backbone=dict(
        norm_cfg=dict(type='SN', using_bn=False),
        init_cfg=dict(checkpoint='work_dirs/resnet18-w32_sn_32xb1_digits/epoch_9.pth'),
    ),
)
