"""Check everything before a training, a test or another tool begins; nothing here writes.

``config`` reads the config, ``check`` makes all checks of a run, ``data`` those of its data.
"""
