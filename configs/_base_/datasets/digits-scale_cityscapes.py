# The digits in Cityscapes' form: `python tools/make_digits.py --formats cityscapes`.
_base_ = './digits_classes.py'

dataset = dict(
    type='BaseSegDataset',
    data_root='work_dirs/data/digits/cityscapes/',
    img_suffix='_leftImg8bit.png',
    seg_map_suffix='_gtFine_labelTrainIds.png',
    metainfo=dict(classes=_base_.classes, palette=_base_.palette),
)
loading = dict(num_workers=0, persistent_workers=False)
