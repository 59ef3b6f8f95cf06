# SSN of the table `practice-trees`, trees, 1 image a batch.
_base_ = [
    '../_base_/rows/practice_ssn.py',
    '../_base_/scales/practice_trees_b1.py',
]

model = dict(backbone=_base_.backbone)
optim_wrapper = _base_.row_rates
custom_hooks = [*_base_.custom_hooks, *_base_.row_hooks]
