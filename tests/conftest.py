"""For every test."""

import random

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def seed_every_test():
    """A failure can be repeated, whichever tests ran before it in the same process."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
