"""What mmseg lacks for the published tables: the dataset GTA5, and Cityscapes' label ids.

It imports mmseg, so `import normplug` does not import it: a config that needs a type of these names
it, ``custom_imports = dict(imports=['normplug', 'normplug.datasets'])``.
"""

from .cityscapes_metric import CityscapesIoUMetric
from .gta5 import GTA5Dataset

__all__ = ['CityscapesIoUMetric', 'GTA5Dataset']
