"""All work on full-size tensors: the passes, and the autograd Function around them."""

from normplug.ops.backend import get_backend, set_backend
from normplug.ops.exported import is_exporting, normalize_exported
from normplug.ops.fused import (
    Filter,
    Reducer,
    Rule,
    normalize,
    normalize_filtered,
    normalize_reference,
)

__all__ = [
    'Filter',
    'Reducer',
    'Rule',
    'get_backend',
    'is_exporting',
    'normalize',
    'normalize_exported',
    'normalize_filtered',
    'normalize_reference',
    'set_backend',
]
