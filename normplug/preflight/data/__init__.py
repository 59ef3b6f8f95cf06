"""Check that the data exist, are whole and fit the config, before anything is written."""

from mmengine.config import Config
from mmengine.dist import is_main_process

from normplug.errors import UserError

from .classes import check_num_classes
from .contents import check_contents
from .paths import broken_json_explained, check_paths
from .problems import Problems
from .unreadable import unreadable_files_explained

__all__ = [
    'broken_json_explained',
    'check_all_data',
    'check_data',
    'check_num_classes',
    'unreadable_files_explained',
]

# Decoding these takes less than a second, or a few of real clips; tools/check_data.py decodes all.
_DECODED = 32


def check_data(cfg: Config, phases: tuple[str, ...]) -> list[str]:
    """Check what can be checked within seconds, also of 100,000 images.

    That is: paths, annotation files, which files exist, and 32 images or clips of each dataset. In
    a process group, rank 0 alone looks into the files.

    Args:
        cfg: a config of known types.
        phases: of ``'train'``, ``'val'``, ``'test'``; those that the config lacks are skipped.

    Returns:
        What the log should say: one line for each kind of thing that mm will leave out.

    Raises:
        UserError: with a line for each kind of error.
    """
    check_paths(cfg, phases)
    if not is_main_process():
        return []
    problems = check_contents(cfg, phases, _DECODED)
    if problems.errors:
        raise UserError('\n'.join(['the data do not fit:', *map(str, problems.errors)]))
    return [f'data: {problem}' for problem in problems.warnings]


def check_all_data(cfg: Config, phases: tuple[str, ...]) -> Problems:
    """As :func:`check_data`, but decode every image, map and clip, and return what is found.

    Raises:
        UserError: a path does not exist, or a dataset cannot be built.
    """
    check_paths(cfg, phases)
    return check_contents(cfg, phases, None)
