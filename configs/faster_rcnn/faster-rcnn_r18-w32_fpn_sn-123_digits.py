# SN in stages 1 to 3, BN in the stem, in stage 4 and in the FPN, from the backbone pretrained
# with BN.
_base_ = './faster-rcnn_r18-w32_fpn_bn_digits.py'

model = dict(
    type='NormPlacement',
    model_type='FasterRCNN',
    norms=[dict(where='backbone.layer[1-3].*', norm_cfg=dict(type='SN', logit_init='bn'))],
)
