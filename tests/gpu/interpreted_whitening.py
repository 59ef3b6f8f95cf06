"""Writes whitening's code for a GPU and runs it in Triton's interpreter; a test starts this.

In one process, unlike the code of other norms: whitening has no kernels of ours, which Inductor
could not read as they are interpreted.
"""

from collections.abc import Iterator
from functools import partial
from itertools import cycle
from unittest import mock

import torch

from tests.gpu.interpreted_code import check
from tests.gpu.written_code import case

# After the stand-in, which those import: what normplug imports binds functions of torch.cuda.
from normplug import norms  # isort: skip
from normplug.ops import traced  # isort: skip

LAYERS = {
    'SW': partial(norms.SW, 6, num_pergroup=2),
    'SW of all': partial(norms.SW, 6, num_pergroup=2, sw_type=5),
    'IterNorm': partial(norms.IterNorm, 6, num_channels=2),
    'GW': partial(norms.GW, 6, num_groups=2),
}
# Two of each class of pixels: that of the map, and that for which the code was made.
PIXELS = (35, 60), (70, 150), (300, 1001), (2100, 3000), (8300, 9001)
FEW = 8  # rows of a map, in place of 16384, from which on it has many
# Layer, Newton's iterations, class of pixels, whether rows are many, mode. SW in every class, the
# others, whose passes are those of SW, in one. Iterations are alike in every class.
CASES = [
    *(('SW', 1, pixels, many, 'train') for pixels in range(len(PIXELS)) for many in (False, True)),
    ('SW', 1, 3, False, 'eval'),
    ('SW of all', 3, 0, False, 'train'),
    ('IterNorm', 1, 1, False, 'eval'),
    ('IterNorm', 3, 2, True, 'train'),
    ('GW', 3, 4, True, 'train'),
]
FORMS = cycle(
    (dtype, last)
    for last in (False, True)
    for dtype in (torch.float32, torch.float16, torch.bfloat16)
)


def rows(
    name: str, iterations: int, pixels: int, many: bool, mode: str, dtype: torch.dtype, last: bool
) -> Iterator[tuple]:
    """The steps of a norm at one size, by code made for another of that class."""
    layer = LAYERS[name](T=iterations)
    if mode == 'eval':
        layer(torch.randn(2, 6, 35, 1))  # its running statistics move
        layer.eval()
    if many and not pixels:
        # Rows as many as are, of few pixels: the interpreter takes one program after the other.
        yield from case(layer, (2800, 6, 2), (2900, 6, 5), dtype, last)
        return
    own, others = PIXELS[pixels]
    with mock.patch.object(traced, '_ROWS', FEW if many else traced._ROWS):
        yield from case(layer, (2, 6, own), (4, 6, others), dtype, last)


if __name__ == '__main__':
    for own, form in zip(CASES, FORMS, strict=False):
        for row in rows(*own, *form):
            check(*row)
