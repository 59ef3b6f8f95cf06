"""Convert released and batch norm weights to ours, and ours to the released layout."""

from normplug.checkpoints.convert import Conversion, convert
from normplug.checkpoints.initializer import ReleasedPretrained
from normplug.checkpoints.source import CheckpointError, read

__all__ = ['CheckpointError', 'Conversion', 'ReleasedPretrained', 'convert', 'read']
