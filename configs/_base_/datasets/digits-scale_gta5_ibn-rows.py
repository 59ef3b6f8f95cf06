# The other domain, in place of GTA5: `python tools/make_digits.py --formats cityscapes_night`.
_base_ = './digits-scale_cityscapes_ibn-rows.py'

data_root = 'work_dirs/data/digits/cityscapes_night/'
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
