# Table 3, row BN†/–: Faster R-CNN+FPN, ResNet-50, COCO, 1x schedule; published AP 36.7.
_base_ = '../models/faster-rcnn_r50_fpn_rows.py'

model = dict(
    backbone=dict(
        # Frozen: running statistics, and gamma and beta, as the pretraining left them.
        norm_cfg=dict(type='BN', requires_grad=False),
    ),
)
