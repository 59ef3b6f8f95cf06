# PN at every norm of the backbone.
backbone = dict(norm_cfg=dict(type='PN'))
