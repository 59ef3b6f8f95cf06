# GN of the table `practice-cells`, cells, 2 images a batch.
_base_ = [
    '../_base_/rows/practice_gn.py',
    '../_base_/scales/practice_cells.py',
]

model = dict(backbone=_base_.backbone)
