# IBN-a/–: Mask R-CNN+FPN, ResNet-50, COCO, 2x schedule; in no table.
#
# IBN-Net-a: the first norm of each block of the first three stages is IBN. FPN and heads have no
# norm. Batch norms, and IBN's half of batch norm, keep the running statistics of the pretraining,
# while gamma and beta are trained: mmdet's standard. Unknown: what the authors did in detection.
_base_ = '../models/mask-rcnn_r50_fpn_rows.py'

model = dict(
    # Merged over mmdet's ResNet: BN, and norm_eval=True.
    backbone=dict(type='IBNResNet', ibn_cfg=('a', 'a', 'a', None)),
)
