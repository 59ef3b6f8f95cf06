# BRN at every norm of the backbone, from the weights of batch norm: in evaluation it is one. Its
# bounds widen at the paper's shares of the training.
backbone = dict(norm_cfg=dict(type='BRN'))
row_hooks = [dict(type='BRNScheduleHook')]
