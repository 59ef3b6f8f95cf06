# BN with the statistics of the batch.
backbone = dict(norm_cfg=dict(type='BN', requires_grad=True))
