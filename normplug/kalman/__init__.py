"""Links between Kalman-normalized layers, and the states that pass over them."""

from normplug.kalman.links import LinkReport, link_kalman, refuse_checkpointing

__all__ = ['LinkReport', 'link_kalman', 'refuse_checkpointing']
