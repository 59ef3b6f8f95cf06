# What a row of Faster R-CNN has different at digits scale: ResNet-18 of half the width, everything
# after it at a quarter, anchors and numbers of proposals for digits of 20 to 56 pixels.
digits_model = dict(
    backbone=dict(depth=18, stem_channels=32, base_channels=32, init_cfg=dict(prefix='backbone.')),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=64),
    rpn_head=dict(in_channels=64, feat_channels=64, anchor_generator=dict(scales=[5])),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64),
        # conv_out_channels: for heads with convolutions; the others have none, and ignore it.
        bbox_head=dict(conv_out_channels=64, in_channels=64, fc_out_channels=256, num_classes=10),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=128)),
        rpn_proposal=dict(nms_pre=300, max_per_img=200),
        rcnn=dict(sampler=dict(num=64)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=200)),
)
# 8 channels a group in the FPN and the heads, as 32 groups have it at full scale.
digits_gn = dict(num_groups=8)
# 0.997 of the old value would leave a tenth of the initial one after the 780 iterations of 1x.
digits_sn = dict(momentum=0.1)
