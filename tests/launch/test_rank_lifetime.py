"""The end of a rank's process."""

import subprocess
import sys

import pytest

SCRIPT = """
import atexit, sys, threading, time
import torch.distributed as dist
from normplug.launch.rank_lifetime import end_rank

class Finalized:
    def __del__(self):
        print('finalized', flush=True)

kept = Finalized()
atexit.register(print, 'atexit')
threading.Thread(target=lambda: (time.sleep(0.2), print('thread'))).start()
if sys.argv[1] == 'gloo':
    dist.init_process_group('gloo', store=dist.HashStore(), rank=0, world_size=1)
end_rank(3)
"""


@pytest.mark.parametrize(
    ('group', 'printed'),
    [('none', ['thread', 'atexit', 'finalized']), ('gloo', ['thread', 'atexit'])],
)
def test_a_rank_on_gloo_does_all_at_its_end_but_finalize(group, printed):
    done = subprocess.run(
        [sys.executable, '-c', SCRIPT, group], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout.split(), done.stderr) == (3, printed, '')
