"""Train from a config: ``python tools/train.py CONFIG`` (see ``--help``)."""

from collections.abc import Sequence

from normplug.launch.cli import main_train
from normplug.launch.rank_lifetime import end_rank


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code: 0, or 2 after an error by the user."""
    return main_train(argv)


if __name__ == '__main__':
    end_rank(main())
