"""Links of KN and CBN to what runs before them, and the states that pass over those of KN."""

from normplug.kalman.convolved import SharedLayerError
from normplug.kalman.links import LinkReport, link_kalman, refuse_checkpointing

__all__ = ['LinkReport', 'SharedLayerError', 'link_kalman', 'refuse_checkpointing']
