# Mask R-CNN+FPN, 2x schedule, KN/KN (in no table): 1 image per GPU, at full scale.
# Batch statistics are an image's own, corrected by KN's prediction. The rate follows the batch.
_base_ = './mask-rcnn_r50_fpn_kn-kn_2x_coco.py'

train_dataloader = dict(batch_size=1)
optim_wrapper = dict(optimizer=dict(lr=0.01))
auto_scale_lr = dict(base_batch_size=8)
