"""What a table is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ['OWN_TEST', 'Column', 'Row', 'Scale', 'Table', 'Test']

# The evaluation that a training ends with.
OWN_TEST = 'own'


@dataclass(frozen=True)
class Column:
    """A number of each row, in per cent.

    Attributes:
        name: its heading.
        metric: its tag in mmengine's records; ``ratio/BN`` (IN, LN) is the mean over all layers
            and both statistics of what SN learned; ``train/loss`` is the last logged training loss,
            the mean over the log's window.
        test: which of the row's tests it comes from.
        factor: to per cent.
        is_error: the metric is an accuracy, and the column 100 less that.
        higher_is_better: None for what is neither, such as a ratio.
    """

    name: str
    metric: str
    test: str = OWN_TEST
    factor: float = 1.0
    is_error: bool = False
    higher_is_better: bool | None = True


@dataclass(frozen=True)
class Test:
    """A test of a trained row.

    Attributes:
        name: what columns call it.
        tta: whether at several scales.
        config: of another data set than the training's, as in ``Scale.config``; its model is the
            same.
    """

    name: str
    tta: bool = False
    config: str | None = None


@dataclass(frozen=True)
class Scale:
    """A row at full scale, or at digits scale.

    Attributes:
        config: in ``configs/``, without '.py'.
        tests: beside the training's own evaluation.
        variant: what a folder's name has behind the config's, for each ``options`` another.
        options: what the row changes of the config, KEY → VALUE of ``--cfg-options``.
    """

    config: str
    tests: tuple[Test, ...] = ()
    variant: str = ''
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Row:
    """A row as the paper has it.

    Attributes:
        name: of the normalizers, as the paper writes them.
        real, digits: at the two scales; None where it is not trained at that scale.
        published: column → number.
        norm, images: of tables over batch sizes: whose curve it belongs to, and its place there
            (images of the statistics); None for a norm that is the same at all of them.
        group: rows of one are compared with each other.
    """

    name: str
    real: Scale | None
    digits: Scale | None
    published: Mapping[str, float | None] = field(default_factory=dict)
    norm: str = ''
    images: int | None = None
    group: str = ''

    def at(self, data: str) -> Scale | None:
        """The row at the scale of ``data``, 'digits' or 'real'."""
        return self.digits if data == 'digits' else self.real


@dataclass(frozen=True, eq=False)
class Table:
    """A published table.

    Attributes:
        name: of the command line.
        title: what it is, with the paper's name for it.
        source: where the published numbers were read.
        columns: the first is what the rows are compared by.
        rows: in the paper's order.
        at_digits: what the rows are at digits scale.
    """

    name: str
    title: str
    source: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    at_digits: str
