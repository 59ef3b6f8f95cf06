"""For the sweep over the model zoos."""

from collections.abc import Iterator

import pytest
import torch

pytest.register_assert_rewrite('tests.zoo.run')


@pytest.fixture(autouse=True)
def memory_that_nobody_has_written() -> Iterator[None]:
    """Uninitialized tensors are NaN, so that whoever reads them is found out."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)
