_base_ = ['./fcn_r18-d8-w32_gn_digits.py', '../_base_/datasets/digits_cityscapes-day.py']
