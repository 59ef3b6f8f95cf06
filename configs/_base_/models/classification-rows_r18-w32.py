# The smaller network of the rows at digits scale: `model = _base_.digits_model` in a leaf.
digits_model = dict(
    backbone=dict(depth=18, stem_channels=32, base_channels=32),
    head=dict(num_classes=10, in_channels=256),
)
