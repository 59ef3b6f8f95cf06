# What a row of the segmentation tables has different at digits scale: ResNet-18 of half the width,
# heads of an eighth.
digits_model = dict(
    backbone=dict(
        depth=18,
        stem_channels=32,
        base_channels=32,
        init_cfg=dict(type='Pretrained', prefix='backbone.'),
    ),
    decode_head=dict(in_channels=256, channels=64, num_classes=11),
    auxiliary_head=dict(in_channels=128, channels=32, num_classes=11),
)
# As in the pretraining.
digits_gn = dict(num_groups=8)
