# SN with equal ratios at the start; gamma, beta and running statistics are the batch norm's.
backbone = dict(norm_cfg=dict(type='SN'))
