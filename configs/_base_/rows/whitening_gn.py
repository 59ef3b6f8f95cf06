# GN at every norm of the backbone, 8 groups at every width, as in its pretraining.
backbone = dict(norm_cfg=dict(type='GN', num_groups=8))
