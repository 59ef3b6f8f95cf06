"""For every test."""

import gc
import os
import random

# Before normplug is imported, here or in a process that a test starts: plain torch, so that no test
# waits for a compiler unless it is about compiled code.
os.environ['NORMPLUG_BACKEND'] = 'eager'

import numpy as np
import pytest
import torch
from mmengine.utils import ManagerMixin

import normplug
from normplug import precision


@pytest.fixture(autouse=True)
def seed_every_test():
    """A failure can be repeated, whichever tests ran before it in the same process."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope='module')
def what_lasts_is_no_garbage():
    """mmengine collects garbage for each dataset: seconds, once compilers have left their caches.

    Else a training of one second took fifteen late in a run of all tests.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def compiled():
    normplug.set_backend('compiled')
    yield
    normplug.set_backend('eager')


@pytest.fixture
def rules_in_float32(monkeypatch):
    """Rules are computed as on a GPU, on the CPU."""
    monkeypatch.setattr(precision, '_IN_FLOAT64', frozenset())


@pytest.fixture
def poisoned_memory():
    """New memory holds NaN, or the largest integer, so that what nobody writes is seen.

    torch fills it when algorithms are to be deterministic, and warns of those that are not.
    """
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def nothing_of_a_runner_outlives_its_test():
    """The loggers, message hubs, visualizers and scopes that mmengine keeps by name.

    Else the next test logs by the logger of this one, whose stream pytest has closed, and a test of
    stderr finds a traceback there.
    """
    before = {kind: dict(kind._instance_dict) for kind in _kinds_kept(ManagerMixin)}
    yield
    for kind in _kinds_kept(ManagerMixin):
        kept = before.get(kind, {})
        for name in kind._instance_dict.keys() - kept.keys():
            for handler in getattr(kind._instance_dict[name], 'handlers', ()):
                handler.close()
        kind._instance_dict.clear()
        kind._instance_dict.update(kept)


def _kinds_kept(kind):
    yield kind
    for subclass in kind.__subclasses__():
        yield from _kinds_kept(subclass)
