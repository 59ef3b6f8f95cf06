"""What the ranks do with layers that whiten."""

import torch
import torch.distributed as dist

from normplug.norms import SyncSW
from tests.test_golden import load
from tests.test_golden_whitening import assert_step, part


def released_sync_sw():
    """What the released layer computed on two ranks of two images each."""
    golden = load('sync_sw3_two_ranks')
    layer = SyncSW(8, momentum=0.1, num_pergroup=4, sw_type=3, released=True).double()
    layer.load_state_dict(part(golden, 'before.'), strict=True)
    rank = f'rank{dist.get_rank()}.'
    for step in range(3):
        assert_step(layer, golden, step, rank)
    torch.testing.assert_close(layer.eval()(golden[f'{rank}x'][0]), golden[f'{rank}eval_y'])
