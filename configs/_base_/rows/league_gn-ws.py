# GN behind convolutions with weight standardization, in all of the backbone; on the digits GN has 8
# groups. Its weights are those of mmdet's GN+WS.
backbone = dict(conv_cfg=dict(type='ConvWS'), norm_cfg=dict(type='GN', num_groups=32))
weights = dict(checkpoint='open-mmlab://jhu/resnet50_gn_ws')
