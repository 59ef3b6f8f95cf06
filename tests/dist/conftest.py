from contextlib import closing

import pytest

from tests.dist.ranks import Ranks


@pytest.fixture(scope='session')
def two(tmp_path_factory):
    """Two processes of one group."""
    with closing(Ranks(2, tmp_path_factory.mktemp('two'))) as ranks:
        yield ranks


@pytest.fixture(scope='session')
def three(tmp_path_factory):
    """Three processes of one group."""
    with closing(Ranks(3, tmp_path_factory.mktemp('three'))) as ranks:
        yield ranks
