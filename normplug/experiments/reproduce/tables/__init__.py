"""The tables by the names of the command line."""

from ..rows import Table
from .batch_noise import BATCH_NOISE, BATCH_NOISE_DETECTION
from .classification import BATCH_SIZE, COMPARISON, IBN_IMAGENET
from .detection import TABLE3, TABLE4
from .heads import TABLE3_HEADS
from .league import LEAGUE_DETECTION, LEAGUE_SEGMENTATION
from .practice import PRACTICE_CELLS, PRACTICE_TREES
from .segmentation import IBN_GTA5, TABLE5_ADE20K, TABLE5_CITYSCAPES
from .video import TABLE6
from .whitening import WHITENING_DETECTION, WHITENING_SEGMENTATION

__all__ = ['SEVERAL', 'TABLES']

_ALL = (TABLE3, TABLE3_HEADS, TABLE4, TABLE5_ADE20K, TABLE5_CITYSCAPES, TABLE6)
_ALL += (IBN_IMAGENET, IBN_GTA5, COMPARISON, BATCH_SIZE)
_ALL += (WHITENING_DETECTION, WHITENING_SEGMENTATION)
_ALL += (BATCH_NOISE, BATCH_NOISE_DETECTION)
_ALL += (PRACTICE_TREES, PRACTICE_CELLS)
_ALL += (LEAGUE_DETECTION, LEAGUE_SEGMENTATION)
TABLES: dict[str, Table] = {table.name: table for table in _ALL}
# Names of several of them together.
SEVERAL: dict[str, tuple[str, ...]] = {
    'league': (LEAGUE_DETECTION.name, LEAGUE_SEGMENTATION.name),
    'all': tuple(TABLES),
}
