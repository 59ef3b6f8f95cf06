"""For the tests of the operators."""

import pytest
import torch


@pytest.fixture
def rng():
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    return torch.Generator(device=device).manual_seed(0)
