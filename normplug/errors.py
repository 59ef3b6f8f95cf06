"""What ends a training without being a bug."""

__all__ = ['TrainingError', 'UnsuitableModelError']


class TrainingError(Exception):
    """A training cannot go on, and its message says all: why, what is safe, what to do.

    The tools print the message alone, without traceback, and exit with 1.
    """


class UnsuitableModelError(TrainingError, ValueError):
    """A hook of the config has nothing to do in the model, or cannot do it."""
