# What the detectors of the tables `practice` have in common, over mmdet's R-CNNs with FPN: ImageNet
# weights of style 'caffe' (tools/fetch_real.py), half of the channels after the backbone and a
# quarter in box and mask head, and fewer proposals, for two CPU cores. Batch norms are in training
# mode, and nothing is frozen but what a row says.
practice_model = dict(
    data_preprocessor=dict(mean=[103.939, 116.779, 123.68], std=[1.0, 1.0, 1.0], bgr_to_rgb=False),
    backbone=dict(
        frozen_stages=-1,
        norm_eval=False,
        style='caffe',
        init_cfg=dict(checkpoint='data/real/resnet50.pth'),
    ),
    neck=dict(out_channels=128),
    rpn_head=dict(in_channels=128, feat_channels=128),
    # A box of which half lies in an object that a tile cuts off (iscrowd) is no background.
    train_cfg=dict(
        rpn=dict(assigner=dict(ignore_iof_thr=0.5)),
        rpn_proposal=dict(nms_pre=500, max_per_img=300),
        rcnn=dict(assigner=dict(ignore_iof_thr=0.5), sampler=dict(num=128)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=300)),
)
