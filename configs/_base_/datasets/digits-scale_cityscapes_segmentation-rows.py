# The rows of Cityscapes, Table 5, at digits scale. A quarter larger than on disk: at output stride
# 8 a stroke is less than a cell wide. No flip: a mirrored digit is another sign.
_base_ = ['./cityscapes_segmentation-rows.py', './digits-scale_cityscapes.py']

crop_size = (96, 96)
padding = dict(size=crop_size)

train_pipeline = _base_.train_pipeline
train_pipeline[2].update(scale=(160, 160))
train_pipeline[3].update(crop_size=crop_size)
train_pipeline[4].update(prob=0.0)
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(scale=(160, 160))

train_dataloader = dict(**_base_.loading, dataset=dict(**_base_.dataset, pipeline=train_pipeline))
val_dataloader = dict(**_base_.loading, dataset=dict(**_base_.dataset, pipeline=test_pipeline))
test_dataloader = val_dataloader
