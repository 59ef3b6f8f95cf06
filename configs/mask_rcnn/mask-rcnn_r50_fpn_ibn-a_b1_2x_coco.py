# Mask R-CNN+FPN, 2x schedule, IBN-a/– (in no table): 1 image per GPU, at full scale.
# Nothing in it depends on the batch, whose norms keep their running statistics. The rate follows
# the batch.
_base_ = './mask-rcnn_r50_fpn_ibn-a_2x_coco.py'

train_dataloader = dict(batch_size=1)
optim_wrapper = dict(optimizer=dict(lr=0.01))
auto_scale_lr = dict(base_batch_size=8)
