# Mask R-CNN+FPN, 2x schedule, SSN/SSN (in no table): 1 image per GPU, at full scale.
# SSN keeps the batch statistics, which are an image's own while training: the released weights, of
# (8,2) at the least, have them. The rate follows the batch.
_base_ = './mask-rcnn_r50_fpn_ssn-ssn_2x_coco.py'

train_dataloader = dict(batch_size=1)
optim_wrapper = dict(optimizer=dict(lr=0.01))
auto_scale_lr = dict(base_batch_size=8)
