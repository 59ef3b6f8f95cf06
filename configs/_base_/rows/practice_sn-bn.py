# SN that starts as the batch norm of the weights (99.5 %), with its gamma, beta and statistics.
backbone = dict(norm_cfg=dict(type='SN', logit_init='bn'))
