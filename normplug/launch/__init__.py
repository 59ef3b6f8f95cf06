"""What the tools train and test with; usable from a script through ``build_runner``."""

from .config import load_config, set_work_dir
from .errors import UserError
from .runner import build_runner

__all__ = ['UserError', 'build_runner', 'load_config', 'set_work_dir']
