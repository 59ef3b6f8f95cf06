# MABN at every norm of the backbone, behind convolutions of centred weights, as published; its
# windows are 16 batches, the paper's 32 images at 2 a batch. (Published: in the neck and the heads
# too.) From our own ImageNet weights.
backbone = dict(conv_cfg=dict(type='CenConv'), norm_cfg=dict(type='MABN', window=16))
weights = dict(
    checkpoint='work_dirs/resnet50_mabn_8xb32_imagenet/epoch_100.pth', prefix='backbone.'
)
