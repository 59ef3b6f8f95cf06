"""All work on full-size tensors: the passes, and the autograd Function around them."""

from normplug.ops.backend import get_backend, set_backend
from normplug.ops.by_instance import expand_per_instance
from normplug.ops.fused import Normalized, normalize
from normplug.ops.measured import batch_moments_of_powers, mean_sigmoid
from normplug.ops.memory import is_exporting, is_transformed
from normplug.ops.naive import normalize_naive
from normplug.ops.plan import Blocks, Filter, Plan, Rule, per_instance
from normplug.ops.reduced import Reducer
from normplug.ops.scripted import at_least_single, normalize_scripted, single_source
from normplug.ops.stepped import stepped

__all__ = [
    'Blocks',
    'Filter',
    'Normalized',
    'Plan',
    'Reducer',
    'Rule',
    'at_least_single',
    'batch_moments_of_powers',
    'expand_per_instance',
    'get_backend',
    'is_exporting',
    'is_transformed',
    'mean_sigmoid',
    'normalize',
    'normalize_naive',
    'normalize_scripted',
    'per_instance',
    'set_backend',
    'single_source',
    'stepped',
]
