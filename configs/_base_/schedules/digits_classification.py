train_cfg = dict(by_epoch=True, max_epochs=3, val_interval=3)
val_cfg = {}
test_cfg = {}

optim_wrapper = dict(optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.05))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=50),
    dict(type='CosineAnnealingLR', by_epoch=True, T_max=3, convert_to_iter_based=True),
]

auto_scale_lr = dict(enable=False, base_batch_size=32)
