# The detectors of the league at full scale: Table 3's, without a norm after the backbone, so that
# rows differ in the backbone alone. Nothing of it is frozen, but in the row frozen BN, which is
# Table 3's.
_base_ = ['../models/faster-rcnn_r50_fpn_rows.py', './coco_faster-rcnn.py']

model = dict(backbone=dict(frozen_stages=-1, norm_eval=False))
