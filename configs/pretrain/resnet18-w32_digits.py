# What the pretrainings of this folder share; a leaf sets the norm.
_base_ = [
    '../_base_/models/resnet18-w32_digits.py',
    '../_base_/datasets/digits_classification.py',
    '../_base_/schedules/digits_classification.py',
    'mmpretrain::_base_/default_runtime.py',
    '../_base_/runtime.py',
]

default_hooks = dict(checkpoint=dict(type='ResumableCheckpointHook'))
randomness = dict(seed=0)
