"""End a rank together with its launcher, and in order."""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import sys
import threading
from typing import NoReturn

import torch.distributed as dist
from mmengine.dist import is_distributed

__all__ = ['die_with_launcher', 'end_rank']

_PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>


def die_with_launcher() -> None:
    """Make Linux kill this rank when torchrun dies, which cannot end it after a SIGKILL."""
    if sys.platform != 'linux':
        return
    launcher = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != launcher:  # it died just before
        os.kill(os.getpid(), signal.SIGKILL)


def end_rank(code: int) -> NoReturn:
    """Exit with ``code``, at the end of a script that may have initialized a process group.

    A thread of gloo may still hold the tensors of the last collective, and needs the interpreter
    to free them. If the interpreter is finalizing, the process sometimes ends by SIGABRT, although
    all its work is done. Destroying the group does not end these threads while a DDP refers to it.
    So a rank on gloo does everything that Python does at exit, except the finalization.
    """
    if is_distributed():
        if dist.get_backend() == 'gloo':
            threading._shutdown()
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        # After a failure other ranks may be inside a collective, and NCCL could wait for them.
        if code == 0:
            dist.destroy_process_group()
    sys.exit(code)
