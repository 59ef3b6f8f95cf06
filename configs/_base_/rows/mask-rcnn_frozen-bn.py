# Table 4, row BN†/–: Mask R-CNN+FPN, ResNet-50, COCO, 2x schedule; published AP 38.6, 34.2.
_base_ = '../models/mask-rcnn_r50_fpn_rows.py'

model = dict(
    backbone=dict(
        # Frozen: running statistics, and gamma and beta, as the pretraining left them.
        norm_cfg=dict(type='BN', requires_grad=False),
    ),
)
