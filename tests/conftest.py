"""For every test."""

import os
import random

# Before normplug is imported, here or in a process that a test starts: plain torch, so that no test
# waits for a compiler unless it is about compiled code.
os.environ['NORMPLUG_BACKEND'] = 'eager'

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def seed_every_test():
    """A failure can be repeated, whichever tests ran before it in the same process."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
