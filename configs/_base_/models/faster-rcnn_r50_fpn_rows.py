# What the rows of Table 3 share: mmdet's Faster R-CNN, with what Detectron, whose settings the
# released code has, does otherwise: RoIAlign of 2x2 points a bin, smooth L1 for the boxes (beta 1/9
# in the RPN), 2000 proposals an image in training.
# Kept from mmdet, and recalled to be otherwise there: anchors that cross the image's border take
# part in training, and RoIAlign is shifted by half a pixel.
_base_ = 'mmdet::_base_/models/faster-rcnn_r50_fpn.py'

model = dict(
    rpn_head=dict(loss_bbox=dict(type='SmoothL1Loss', beta=1 / 9)),
    roi_head=dict(
        bbox_roi_extractor=dict(roi_layer=dict(sampling_ratio=2)),
        bbox_head=dict(loss_bbox=dict(type='SmoothL1Loss', beta=1.0)),
    ),
    train_cfg=dict(rpn_proposal=dict(max_per_img=2000)),
)
