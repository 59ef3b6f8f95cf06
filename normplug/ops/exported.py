"""moments → rule → affine as plain operators, for a graph that leaves PyTorch.

No autograd Function, and no float64, which few runtimes have: moments and rule are float32 (float64
for float64 input). Moments are centred as everywhere, so that the error grows with |mean|/std only
by the rounding of the means themselves, about 1e-7 · |mean|/std of the output.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from normplug.ops import reference
from normplug.ops.fused import Rule
from normplug.stats import Moments

__all__ = ['is_exporting', 'normalize_exported']


@torch.compiler.assume_constant_result
def is_exporting() -> bool:
    """Whether ``torch.export``, an ONNX exporter or ``torch.jit.trace`` records this forward.

    Dynamo would answer ``torch.compiler.is_exporting`` by True in ``torch.compile`` too (torch
    2.11), so it is made to call this function and to keep the answer for the graph.
    """
    return torch.compiler.is_exporting() or torch.jit.is_tracing()


def normalize_exported(
    x_n: Tensor,
    rule: Rule,
    params: Sequence[Tensor],
    *,
    given: Moments | None = None,
    correction: int = 0,
) -> Tensor:
    """What :func:`normplug.ops.normalize` computes in evaluation, step by step.

    Args:
        x_n: (N, C, *spatial) with at least one pixel, floating point.
        rule: see :data:`normplug.ops.Rule`. Moments and parameters reach it in float32.
        params: the tensors that the rule takes after the moments.
        given: batch moments (C',), or None where the rule takes none.
        correction: instance variances are divided by H·W − correction (at least by 1).

    Returns:
        y in x's shape and dtype.
    """
    dtype = reference.working_dtype(x_n)
    mean_nc, var_nc = reference.moments(x_n, dtype, share=1)
    if correction:
        pixels = x_n[0, 0].numel()
        var_nc = var_nc * (pixels / max(pixels - correction, 1))
    batch = None if given is None else Moments(*(t.to(dtype) for t in given))
    scale_nc, offset_nc = rule(Moments(mean_nc, var_nc), batch, *(p.to(dtype) for p in params))
    return reference.affine(x_n, mean_nc, scale_nc, offset_nc)
