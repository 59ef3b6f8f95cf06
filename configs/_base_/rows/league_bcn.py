# BCN at every norm of the backbone, behind convolutions with weight standardization, as published;
# on the digits it has 8 groups. From our own ImageNet weights.
backbone = dict(conv_cfg=dict(type='ConvWS'), norm_cfg=dict(type='BCN', num_groups=32))
weights = dict(checkpoint='work_dirs/resnet50_bcn_8xb32_imagenet/epoch_100.pth', prefix='backbone.')
