# IBN-a of the table `practice-cells`, cells, 1 image a batch.
_base_ = [
    '../_base_/rows/practice_ibn-a.py',
    '../_base_/scales/practice_cells_b1.py',
]

model = dict(backbone=_base_.backbone)
