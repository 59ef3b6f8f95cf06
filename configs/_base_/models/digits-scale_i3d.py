# What a row of Table 6 has different at digits scale: ResNet-18 of half the width. Its kernels
# reach over time in every second block but for stage 1, as at full scale, and not in stage 4, which
# sees two moments, nor in the stem: inflated, that would blur the digit along its way.
digits_model = dict(
    backbone=dict(
        depth=18,
        base_channels=32,
        conv1_kernel=(1, 7, 7),
        conv1_stride_t=1,
        inflate=((1, 1), (1, 0), (1, 0), (0, 0)),
        init_cfg=dict(prefix='backbone.'),
    ),
    # No dropout: with it, few clips do not train the head (docs/lab/video.md).
    cls_head=dict(num_classes=8, in_channels=256, dropout_ratio=0.0),
)
# As in the pretraining.
digits_gn = dict(num_groups=8)
