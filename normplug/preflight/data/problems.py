"""A list of what is wrong with the data, by kind, with counts and examples."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ['Problem', 'Problems']

_FEW = 3


@dataclass
class Problem:
    """One kind of problem in one place.

    Attributes:
        place: config key and file or folder.
        what: what is wrong, in the plural.
        advice: what to do, a sentence without its full stop.
        cases: what is affected, one short text each.
    """

    place: str
    what: str
    advice: str
    cases: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """One line, with a few of the cases."""
        few = self.cases[:_FEW]
        shown = ', '.join(few) + (', ...' if len(few) < len(self.cases) else '')
        return f'{self.place}: {self.what}: {len(self.cases)} ({shown}). {self.advice}.'

    def full_text(self) -> str:
        """All of the cases, each on a line of its own."""
        lines = [f'{self.place}: {self.what}: {len(self.cases)}. {self.advice}.', *self.cases]
        return '\n  '.join(lines)


class Problems:
    """Errors, with which training must not start, and warnings, which mm can live with.

    Attributes:
        unseen: what was not looked at, and why: one text for each.
    """

    def __init__(self) -> None:
        self.unseen: list[str] = []
        self._errors: dict[tuple[str, str], Problem] = {}
        self._warnings: dict[tuple[str, str], Problem] = {}

    def error(self, place: str, what: str, case: str, advice: str) -> None:
        """Add a case of what breaks a training, or makes it learn something wrong."""
        self._add(self._errors, place, what, case, advice)

    def warn(self, place: str, what: str, case: str, advice: str) -> None:
        """Add a case of data that mm leaves out, or uses although they look wrong."""
        self._add(self._warnings, place, what, case, advice)

    @property
    def errors(self) -> list[Problem]:
        """One for each kind of error."""
        return list(self._errors.values())

    @property
    def warnings(self) -> list[Problem]:
        """One for each kind of warning."""
        return list(self._warnings.values())

    @staticmethod
    def _add(kinds: dict, place: str, what: str, case: str, advice: str) -> None:
        kinds.setdefault((place, what), Problem(place, what, advice)).cases.append(case)
