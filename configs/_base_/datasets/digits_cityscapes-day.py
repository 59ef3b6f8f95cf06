# Digits on a photograph in Cityscapes' form, all in one light (a domain):
# `python tools/make_digits.py --formats cityscapes_day`.
# Train ids 0 to 9 are the digits, 10 the photograph, 255 is not evaluated.
_base_ = './digits_segmentation.py'

data_root = 'work_dirs/data/digits/cityscapes_day/'
form = dict(
    data_root=data_root,
    img_suffix='_leftImg8bit.png',
    seg_map_suffix='_gtFine_labelTrainIds.png',
)

train_dataloader = dict(
    dataset=dict(
        **form,
        data_prefix=dict(img_path='leftImg8bit/train', seg_map_path='gtFine/train'),
    ),
)
val_dataloader = dict(
    dataset=dict(
        **form,
        data_prefix=dict(img_path='leftImg8bit/val', seg_map_path='gtFine/val'),
    ),
)
test_dataloader = val_dataloader
