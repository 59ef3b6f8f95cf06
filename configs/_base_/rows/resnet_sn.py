# Rows SN of the ImageNet table by batch and of the comparison BN/GN/SN/KN.
#
# Published top-1: (8,32) 76.9 (77.2 in the comparison), (8,16) 76.7, (8,8) 76.7, (8,4) 75.9,
# (8,2) 75.6, (8,1) 75.0, (1,32) 76.6, (1,16) 76.3, (1,8) 75.9.
# Released code: SN at every norm, also of the shortcuts; 0.9 of the running statistics are kept;
# the last gamma of each block starts at 0; dropout 0.5 before fc.
# Unlike it, the variance of IN divides by the pixels (there: one less), and buffers are averaged
# over the GPUs (there: those of the first). released_statistics=True has the former. Unknown:
# whether the table was tested with moving averages, as here, or with batch averages.
_base_ = './resnet_bn.py'

model = dict(
    backbone=dict(norm_cfg=dict(type='SN')),
    head=dict(type='DropoutLinearClsHead', dropout_rate=0.5),
)
