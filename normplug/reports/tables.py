"""Tables of runs, as Markdown."""

from collections.abc import Sequence

from .runs import Run

__all__ = ['COCO_COLUMNS', 'coco_row', 'markdown']

COCO_COLUMNS = ('norm', 'AP', 'AP50', 'AP75', 'training time (s)', 'peak memory (MB)')


def coco_row(run: Run) -> dict[str, str | float | int | None]:
    """The last evaluation of a detector by COCO's metric (%), and what its training took."""
    metrics = run.val[-1]
    return {
        'norm': run.name,
        'AP': round(100 * metrics['coco/bbox_mAP'], 1),
        'AP50': round(100 * metrics['coco/bbox_mAP_50'], 1),
        'AP75': round(100 * metrics['coco/bbox_mAP_75'], 1),
        'training time (s)': round(run.train_seconds),
        'peak memory (MB)': run.peak_memory,
    }


def markdown(columns: Sequence[str], rows: Sequence[dict]) -> str:
    """A Markdown table; a missing cell shows as a dash, and a `|` in one stays in it."""
    lines = ['| ' + ' | '.join(columns) + ' |', '|' + ' --- |' * len(columns)]
    for row in rows:
        cells = ('-' if row.get(name) is None else str(row[name]) for name in columns)
        lines.append('| ' + ' | '.join(cell.replace('|', r'\|') for cell in cells) + ' |')
    return '\n'.join(lines) + '\n'
