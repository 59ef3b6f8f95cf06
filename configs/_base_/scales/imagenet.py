# The rows of the ImageNet tables at full scale; SN and SSN have data of their own.
_base_ = ['mmpretrain::_base_/datasets/imagenet_bs32.py', '../schedules/imagenet-rows_100e.py']
