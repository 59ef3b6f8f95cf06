# Table 5 on Cityscapes. No code of it was released. Recalled from the paper and not verified: lr
# 0.01, 700 epochs. The images a step are unknown; 8 GPUs x 2, as on ADE20K, make 130k iterations of
# 700 epochs of 2975 images. Unknown too, hence as on ADE20K: momentum, decay, poly.
_base_ = './ade20k_segmentation-rows.py'

train_cfg = dict(max_iters=130000, val_interval=26000)
optim_wrapper = dict(optimizer=dict(lr=0.01))
param_scheduler = [
    dict(type='PolyLR', power=0.9, eta_min=0.0, begin=0, end=130000, by_epoch=False),
]
