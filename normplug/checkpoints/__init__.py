"""Released weights ↔ ours, and batch norm's to ours; the import registers the initializer."""

from normplug.checkpoints.convert import Conversion, convert
from normplug.checkpoints.initializer import ReleasedPretrained
from normplug.checkpoints.source import CheckpointError, read

__all__ = ['CheckpointError', 'Conversion', 'ReleasedPretrained', 'convert', 'read']
