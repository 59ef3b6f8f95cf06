_base_ = ['./fcn_r18-d8-w32_sn_digits.py', '../_base_/datasets/digits_cityscapes-day.py']
