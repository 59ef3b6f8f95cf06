"""All work on full-size tensors: the passes, and the autograd Function around them."""

from normplug.ops.fused import Reducer, Rule, normalize, normalize_reference

__all__ = ['Reducer', 'Rule', 'normalize', 'normalize_reference']
