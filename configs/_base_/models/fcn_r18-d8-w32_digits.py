# FCN at digits scale: mmseg's model on ResNet-18 of half the width, output stride 8.
_base_ = 'mmseg::_base_/models/fcn_r50-d8.py'

# Sizes vary in training: bring a batch to one.
data_preprocessor = dict(size=(128, 128))
model = dict(
    data_preprocessor=data_preprocessor,
    pretrained=None,
    backbone=dict(type='ResNet', depth=18, stem_channels=32, base_channels=32),
    decode_head=dict(in_channels=256, channels=64, num_convs=1, concat_input=False, num_classes=11),
    auxiliary_head=dict(in_channels=128, channels=32, num_classes=11),
)
