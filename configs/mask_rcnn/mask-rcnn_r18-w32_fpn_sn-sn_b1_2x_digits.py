# Mask R-CNN+FPN, 2x schedule, SN/SN (in no table): 1 image a batch, at digits scale.
# Without batch statistics, as at full scale, and from such a pretraining.
_base_ = './mask-rcnn_r18-w32_fpn_sn-sn_2x_digits.py'

alone = dict(using_bn=False)
model = dict(
    backbone=dict(
        norm_cfg=alone,
        init_cfg=dict(checkpoint='work_dirs/resnet18-w32_sn_32xb1_digits/epoch_9.pth'),
    ),
    neck=dict(norm_cfg=alone),
    roi_head=dict(bbox_head=dict(norm_cfg=alone), mask_head=dict(norm_cfg=alone)),
)
train_dataloader = dict(batch_size=1)
optim_wrapper = dict(optimizer=dict(lr=_base_.optim_wrapper.optimizer.lr / 2))
param_scheduler = _base_.one_image_param_scheduler
auto_scale_lr = dict(base_batch_size=1)
