# IBN at the first norm of every block of stages 1 to 3 (IBN-Net-a), BN elsewhere, from the backbone
# pretrained with BN.
_base_ = './faster-rcnn_r18-w32_fpn_bn_digits.py'

model = dict(
    type='NormPlacement',
    model_type='FasterRCNN',
    norms=[dict(where='backbone.layer[1-3].*.bn1', norm_cfg=dict(type='IBN'))],
)
