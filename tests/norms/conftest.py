import pytest


@pytest.fixture(autouse=True)
def every_value_must_be_written(poisoned_memory):
    pass
