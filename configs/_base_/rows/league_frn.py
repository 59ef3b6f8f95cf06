# FRN at every norm of the backbone, with the paper's eps, fixed, as maps are larger than 1x1. ReLU
# stays; the paper has a thresholded unit in its place. From our own ImageNet weights.
backbone = dict(norm_cfg=dict(type='FRN', eps=1e-6))
weights = dict(checkpoint='work_dirs/resnet50_frn_8xb32_imagenet/epoch_100.pth', prefix='backbone.')
