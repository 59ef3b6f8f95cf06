# IBN-Net-a: half of the channels of the first norm of each block get instance norm; gamma, beta and
# the statistics of the other half are the batch norm's.
backbone = dict(type='IBNResNet', ibn_cfg=('a', 'a', 'a', None))
