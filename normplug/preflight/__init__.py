"""What is looked at before a training, a test or another tool begins, and nothing is written.

``config`` reads the config, ``check`` makes all checks of a run, ``data`` those of its data.
"""
