# mmaction2's schedule of I3D: SGD 0.01 for 8 GPUs x 8 clips, momentum 0.9, weight decay 1e-4, a
# tenth of the rate at epochs 40 and 80 of 100. With 4 clips per GPU the rate is half, as it is
# linear in the clips.
#
# Recalled, of the Non-local and Group Normalization papers: the rate, the decay and steps of a
# tenth. Unknown: how many iterations. Gradients are clipped at a norm of 40, as mmaction2 does. The
# decay reaches all parameters, as in the rows of ImageNet.
_base_ = [
    'mmaction::_base_/schedules/sgd_100e.py',
    'mmaction::_base_/default_runtime.py',
    '../runtime.py',
]

train_cfg = dict(val_interval=5)
optim_wrapper = dict(constructor='NormOptimWrapperConstructor')
auto_scale_lr = dict(enable=False, base_batch_size=64)
# The table is of the last checkpoint, not of the best.
default_hooks = dict(
    checkpoint=dict(type='ResumableCheckpointHook', interval=5, max_keep_ckpts=2, save_best=None)
)
