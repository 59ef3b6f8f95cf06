# The rows of the ImageNet tables at digits scale; SN and SSN have data of their own.
_base_ = [
    '../models/classification-rows_r18-w32.py',
    '../datasets/digits_classification-rows.py',
    '../schedules/digits_classification-rows.py',
]
