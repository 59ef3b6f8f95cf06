# The segmentors of the league at full scale: Table 5's, with GN in both heads, so that rows differ
# in the backbone alone.
_base_ = ['../models/fcn_r50-d8_segmentation-rows.py', './ade20k.py']

head = dict(
    **_base_.loss_at_an_eighth,
    norm_cfg=dict(type='GN', num_groups=32),
    num_classes=150,
    dropout_ratio=0.0,
)
model = dict(
    data_preprocessor=_base_.padding,
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50')),
    decode_head=head,
    auxiliary_head=dict(**head, channels=512),
)
