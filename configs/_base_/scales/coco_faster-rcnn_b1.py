# The same at 1 image per GPU: as many epochs; the rate follows the batch.
_base_ = './coco_faster-rcnn.py'

train_dataloader = dict(batch_size=1)
optim_wrapper = dict(optimizer=dict(lr=0.01))
auto_scale_lr = dict(base_batch_size=8)
