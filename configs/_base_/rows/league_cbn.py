# CBN at every norm of the backbone, from the weights of batch norm: in evaluation it is one.
# (Published: in the neck and the heads, behind a frozen backbone.)
backbone = dict(norm_cfg=dict(type='CBN'))
row_hooks = [dict(type='KalmanLinkHook')]
