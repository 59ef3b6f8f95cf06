"""Errors that end a training and are not bugs."""

__all__ = ['TrainingError', 'UnsuitableModelError']


class TrainingError(Exception):
    """A training cannot continue; the message says why, what is saved and what to do.

    The tools print the message alone, without traceback, and exit with 1.
    """


class UnsuitableModelError(TrainingError, ValueError):
    """A hook of the config has nothing to do in the model, or cannot do it."""
