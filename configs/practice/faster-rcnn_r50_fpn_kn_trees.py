# KN of the table `practice-trees`, trees, 2 images a batch.
_base_ = [
    '../_base_/rows/practice_kn.py',
    '../_base_/scales/practice_trees.py',
]

model = dict(backbone=_base_.backbone)
custom_hooks = [*_base_.custom_hooks, *_base_.row_hooks]
