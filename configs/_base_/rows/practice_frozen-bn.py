# mmdet's standard: statistics, gamma and beta as ImageNet left them; stem and first stage do not
# train at all.
backbone = dict(norm_cfg=dict(type='BN', requires_grad=False), norm_eval=True, frozen_stages=1)
