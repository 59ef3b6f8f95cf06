from pathlib import Path

import pytest

from normplug.data.build import FORMATS, DigitsSettings, build_digits
from normplug.data.scene import SceneSettings

SETTINGS = DigitsSettings(train=50, val=10, scene=SceneSettings(size=96))


@pytest.fixture(scope='session')
def digits(tmp_path_factory) -> Path:
    """The folder of a small build of every format."""
    out = tmp_path_factory.mktemp('digits') / 'out'
    build_digits(out, list(FORMATS), SETTINGS, log=lambda line: None)
    return out
