# The other visual domain in the same form: another photograph, dark and tinted, and dimmer digits
# in colour: `python tools/make_digits.py --formats cityscapes_night`.
_base_ = './digits_cityscapes-day.py'

data_root = 'work_dirs/data/digits/cityscapes_night/'
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
