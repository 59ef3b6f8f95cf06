# GTA5 for IBN-Net's Table 6: resized to 1024x563, then cropped at random (published). Unknown: the
# crop and the flip, here mmseg's standard for Cityscapes (512x1024); which part is tested on, here
# the 6382 images of val. docs/real_data.md says which files are needed.
_base_ = './cityscapes_ibn-rows.py'

data_root = 'data/gta5/'
resize = dict(scale=(1024, 563))
train_pipeline = _base_.train_pipeline
train_pipeline[2].update(resize)
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(resize)
dataset = dict(
    type='GTA5Dataset',
    data_root=data_root,
    data_prefix=dict(img_path='images', seg_map_path='labels'),
)

train_dataloader = dict(dataset=dict(**dataset, ann_file='train.txt', pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(**dataset, ann_file='val.txt', pipeline=test_pipeline))
test_dataloader = val_dataloader
