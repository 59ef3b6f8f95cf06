import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / 'launch'))  # launch_tiny

from tests.launch.conftest import (  # noqa: F401
    no_environment_report,
    project,
    refuses,
    run_test,
    train,
)
