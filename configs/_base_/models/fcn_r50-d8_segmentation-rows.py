# What the rows of the segmentation tables share: FCN on the original ResNet (7x7 stem, stride on
# the 3x3), output stride 8. Stages 3 and 4 are dilated by 2 and 4, their first blocks by half
# (released code; contract_dilation of mmseg's base).
#
# Head, and auxiliary head on stage 3 with weight 0.4: a 3x3 convolution, norm, ReLU, and a 1x1
# (released code of Table 5; for IBN-Net's Table 6 its author: PSPNet without pyramid module).
# mmseg scales the logits up to the labels' size for the loss and averages over all pixels, ignored
# ones too. So do these rows but for ADE20K, where the released code is known: it scales the labels
# down by 8 and averages over those that count.
_base_ = 'mmseg::_base_/models/fcn_r50-d8.py'

model = dict(
    pretrained=None,
    backbone=dict(type='ResNet'),
    decode_head=dict(num_convs=1, concat_input=False),
)
