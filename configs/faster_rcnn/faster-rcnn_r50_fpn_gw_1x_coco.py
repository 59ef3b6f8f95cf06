# Faster R-CNN+FPN with GW, 1x schedule, at full scale, from our own ImageNet weights with GW.
_base_ = ['../_base_/rows/faster-rcnn_gw.py', '../_base_/scales/coco_faster-rcnn.py']

checkpoint = 'work_dirs/resnet50_gw_8xb32_imagenet/epoch_100.pth'
model = dict(backbone=dict(init_cfg=dict(checkpoint=checkpoint, prefix='backbone.')))
