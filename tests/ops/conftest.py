import pytest

import normplug


@pytest.fixture(autouse=True)
def every_value_must_be_written(poisoned_memory):
    pass


@pytest.fixture(autouse=True)
def eager_afterwards():
    yield
    normplug.set_backend('eager')
