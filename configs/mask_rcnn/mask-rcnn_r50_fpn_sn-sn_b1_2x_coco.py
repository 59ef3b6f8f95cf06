# Mask R-CNN+FPN, 2x schedule, SN/SN (in no table): 1 image per GPU, at full scale.
# As the authors of SN advise there, SN is without batch statistics, and starts from their (8,1)
# weights. The released detectors called (8,1) have 2 images per GPU and the rate 0.02; at 1 image
# the rate follows the batch here.
_base_ = './mask-rcnn_r50_fpn_sn-sn_2x_coco.py'

alone = dict(using_bn=False)
model = dict(
    backbone=dict(norm_cfg=alone, init_cfg=dict(checkpoint='checkpoints/resnet50v1_sn_8x1.pth')),
    neck=dict(norm_cfg=alone),
    roi_head=dict(bbox_head=dict(norm_cfg=alone), mask_head=dict(norm_cfg=alone)),
)
train_dataloader = dict(batch_size=1)
optim_wrapper = dict(optimizer=dict(lr=0.01))
auto_scale_lr = dict(base_batch_size=8)
