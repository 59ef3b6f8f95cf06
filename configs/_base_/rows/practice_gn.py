# GN of 32 groups. Its layers have other names than BN's, so that gamma and beta start at 1 and 0;
# but for those of the shortcuts, which are named by their place and take BN's, as in mmdet.
backbone = dict(norm_cfg=dict(type='GN', num_groups=32))
