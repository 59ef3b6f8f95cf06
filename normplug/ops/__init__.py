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
from normplug.ops.scripted import at_least_single, normalize_scripted, single_source
from normplug.ops.stepped import stepped

__all__ = [
    'Filter',
    'Reducer',
    'Rule',
    'at_least_single',
    'get_backend',
    'is_exporting',
    'normalize',
    'normalize_exported',
    'normalize_filtered',
    'normalize_reference',
    'normalize_scripted',
    'set_backend',
    'single_source',
    'stepped',
]
