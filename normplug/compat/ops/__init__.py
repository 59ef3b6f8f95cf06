"""mmcv's operators, by torchvision's kernels or by plain torch.

Every function has the name, the argument order and the keywords by which `mmcv/ops/*.py` calls the
compiled one, and, like it, writes its result into the buffers it is given.

Kernels run in fp32 at least, for any input type: fp16 cannot represent box coordinates above 2048
exactly. The result is rounded to the type of the buffer.

Shapes: boxes (N, 4) as x1, y1, x2, y2; rois (K, 5) with the index of the sample in front.
"""

from . import (
    carafe,
    deform_attn,
    deform_conv,
    deform_roi_pool,
    focal_loss,
    info,
    masked_conv,
    nms,
    psa_mask,
    roi_pooling,
    soft_nms,
)

__all__ = ['OPERATORS']

_MODULES = (carafe, deform_attn, deform_conv, deform_roi_pool, focal_loss, info, masked_conv, nms)
_MODULES += (psa_mask, roi_pooling, soft_nms)

# By the names that `mmcv._ext` has them under.
OPERATORS = {name: getattr(module, name) for module in _MODULES for name in module.__all__}
