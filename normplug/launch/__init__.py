"""The functions with which the tools train and test; a script calls ``build_runner``."""

from normplug.errors import UserError
from normplug.preflight.config import load_config

from .options import set_work_dir
from .runner import build_runner

__all__ = ['UserError', 'build_runner', 'load_config', 'set_work_dir']
