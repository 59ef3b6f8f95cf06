"""Writes whitening's code for a GPU and runs it in Triton's interpreter; a test starts this.

In one process, unlike the code of other norms: whitening has no kernels of ours, which Inductor
could not read as they are interpreted.
"""

import sys
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

# Newton's iterations are products of small matrices, the same in every class.
LAYERS = {
    'SW': partial(norms.SW, 6, num_pergroup=2),
    'SW of all': partial(norms.SW, 6, num_pergroup=2, sw_type=5),
    'IterNorm': partial(norms.IterNorm, 6, num_channels=2),
    'GW': partial(norms.GW, 6, num_groups=2),
}
# Two of each class of pixels: that of the map, and that for which the code was made.
PIXELS = (35, 60), (70, 150), (300, 1001), (2100, 3000), (8300, 9001)
FEW = 8  # rows of a map, in place of 16384, from which on it has many
SINGLE, HALF, BRAIN = torch.float32, torch.float16, torch.bfloat16
FORMS = [(d, last) for last in (False, True) for d in (SINGLE, HALF, BRAIN)]


def rows(name: str) -> Iterator[tuple]:
    """The steps of a norm in every class, in each dtype and layout, and evaluation.

    The passes of IterNorm and GW are those of SW: these see many rows in every other class.
    """
    forms, build = cycle(FORMS), LAYERS[name]
    if name != 'SW of all':
        for place, (pixels, others) in enumerate(PIXELS):
            for many in (False, True) if name == 'SW' else (place % 2 == 1,):
                with mock.patch.object(traced, '_ROWS', FEW if many else traced._ROWS):
                    yield from case(build(T=1), (2, 6, pixels), (4, 6, others), *next(forms))
        # Rows as many as are, of few pixels: the interpreter takes one program after the other.
        yield from case(build(T=1), (2800, 6, 2), (2900, 6, 5), SINGLE, False)
    if name != 'SW':
        layer = build(T=3)
        yield from case(layer, (2, 6, 35), (4, 6, 60), SINGLE, False)
        if layer.batch_from is not None:  # whose running statistics have moved
            yield from case(layer.eval(), (2, 6, 35), (4, 6, 60), SINGLE, False)


if __name__ == '__main__':
    for name in sys.argv[1:] or LAYERS:
        for row in rows(name):
            check(*row)
