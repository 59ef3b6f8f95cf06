"""Types that mmseg lacks for the published tables: the dataset GTA5, and Cityscapes' label ids.

This module imports mmseg, so `import normplug` does not import it. A config that needs one of its
types has ``custom_imports = dict(imports=['normplug', 'normplug.datasets'])``.
"""

from .cityscapes_metric import CityscapesIoUMetric
from .gta5 import GTA5Dataset

__all__ = ['CityscapesIoUMetric', 'GTA5Dataset']
