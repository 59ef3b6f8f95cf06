# Digits on photographs in ADE20K's form: `python tools/make_digits.py --formats ade`.
# Label 0 is not evaluated (reduce_zero_label); 1 to 10 are the digits, 11 the photograph.
_base_ = './digits_segmentation.py'

data_root = 'work_dirs/data/digits/ade/'
form = dict(data_root=data_root, img_suffix='.jpg', seg_map_suffix='.png', reduce_zero_label=True)

train_dataloader = dict(
    dataset=dict(
        **form,
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
    ),
)
val_dataloader = dict(
    dataset=dict(
        **form,
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
    ),
)
test_dataloader = val_dataloader
