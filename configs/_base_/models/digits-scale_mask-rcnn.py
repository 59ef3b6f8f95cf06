# The same for Mask R-CNN.
_base_ = './digits-scale_faster-rcnn.py'

digits_model = dict(
    roi_head=dict(
        mask_roi_extractor=dict(out_channels=64),
        mask_head=dict(in_channels=64, conv_out_channels=64, num_classes=10),
    ),
)
