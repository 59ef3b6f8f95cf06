"""Links between Kalman-normalized layers, and what the states that travel over them become."""

from normplug.kalman.links import LinkReport, link_kalman, refuse_checkpointing

__all__ = ['LinkReport', 'link_kalman', 'refuse_checkpointing']
