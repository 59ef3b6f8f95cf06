"""The table of formats, and building them so that a folder is either complete or missing."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from normplug.digits_record import RECORD
from normplug.errors import UserError

from .ade import write_ade
from .cityscapes import building_settings, day_settings, night_settings, write_cityscapes
from .classification import crop_settings, write_classification
from .clip import ClipMaker, clip_settings
from .coco import write_coco
from .kinetics import write_rawframes, write_videos
from .scene import Maker, SceneMaker, SceneSettings

__all__ = [
    'FORMATS',
    'RECORD',
    'DigitsError',
    'DigitsSettings',
    'Format',
    'build_digits',
    'description',
    'written_whole',
]

# Increase it when the same settings give different files.
VERSION = 1
# Below, the smallest digits are a few pixels; above, the photographs are a blur.
SIZES = (64, 1024)
_LIGHTS = (
    'Each picture has its own light now; old scenes, and those of --no-light, cityscapes_day and '
    'cityscapes_night, are all in one'
)


class DigitsError(UserError, ValueError):
    """Nothing was written, or what was begun was removed; the message says what to do."""


@dataclass(frozen=True)
class DigitsSettings:
    """What `build_digits` writes: `train` and `val` images, decided by `seed`.

    Raises:
        DigitsError: a negative seed, a count below 1, a size or a quality out of range.
    """

    seed: int = 0
    train: int = 1600
    val: int = 200
    scene: SceneSettings = field(default_factory=SceneSettings)

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.seed < 0:
            raise DigitsError(f'--seed {self.seed}: must be 0 or more')
        for option in ('train', 'val'):
            if getattr(self, option) < 1:
                raise DigitsError(f'--{option} {getattr(self, option)}: must be 1 or more')
        low, high = (self.scene.light and self.scene.light.jpeg) or (1, 1)
        if not 1 <= low <= high <= 100:
            raise DigitsError(
                f'--jpeg {low} {high}: must be qualities from 1 to 100, the lower one first'
            )
        if not SIZES[0] <= self.scene.size <= SIZES[1]:
            raise DigitsError(
                f'--size {self.scene.size}: must be from {SIZES[0]} to {SIZES[1]} pixels'
            )


@dataclass(frozen=True)
class Format:
    """A writer of one on-disk format, and what it changes about the scenes.

    `write(folder, maker, counts)` fills the existing, empty `folder` with `counts[split]` scenes
    of each split, which `maker(settings, seed)` makes.
    """

    write: Callable[[Path, Any, Mapping[str, int]], None]  # Any: the maker below
    adapt: Callable[[SceneSettings], SceneSettings] = replace
    maker: type[Maker] = SceneMaker


FORMATS: dict[str, Format] = {
    'coco': Format(write_coco),
    'classification': Format(write_classification, crop_settings),
    'ade': Format(write_ade),
    'cityscapes': Format(write_cityscapes, building_settings),
    'cityscapes_day': Format(write_cityscapes, day_settings),
    'cityscapes_night': Format(write_cityscapes, night_settings),
    'kinetics': Format(write_videos, clip_settings, ClipMaker),
    'kinetics_rawframes': Format(write_rawframes, clip_settings, ClipMaker),
}


def build_digits(
    out: Path,
    formats: Sequence[str],
    settings: DigitsSettings,
    force: bool = False,
    log: Callable[[str], None] = print,
) -> None:
    """Write each format into `out/<format>`, unless it is there already with these settings.

    All of `formats` are checked before the first file is written.

    Raises:
        DigitsError: an unknown format; a folder that holds something else (or, without `force`,
            the same with other settings); another format in `out` has another light; `out` cannot
            be written.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise DigitsError(
            f'--formats {" ".join(unknown)}: choose one or more of {", ".join(FORMATS)}'
        )
    records = {name: description(name, settings) for name in formats}
    try:
        _check_light(out, records)
        missing = [name for name in records if not _is_there(out / name, records[name], force, log)]
        if missing:
            out.mkdir(parents=True, exist_ok=True)
        for name in missing:
            _build(out / name, FORMATS[name], settings, records[name], log)
    except OSError as error:
        raise DigitsError(f'--out {out}: cannot be written ({error})') from error


def description(name: str, settings: DigitsSettings) -> dict:
    """What decides the files of a format, as JSON gives it back."""
    scene = asdict(FORMATS[name].adapt(settings.scene))
    if scene['light'] and scene['light']['jpeg'] is None:  # as before there was such a thing
        del scene['light']['jpeg']
    record = {'format': name, 'version': VERSION, **asdict(settings), 'scene': scene}
    return json.loads(json.dumps(record))


def _read(folder: Path) -> dict:
    """The description that lies in a folder.

    Raises:
        OSError, ValueError, TypeError, KeyError: there is none.
    """
    found = json.loads((folder / RECORD).read_text(encoding='utf-8'))
    # Scenes had one light, and nothing said so, before they had each their own.
    return {**found, 'scene': {'light': None, **found['scene']}}


def _check_light(out: Path, records: Mapping[str, dict]) -> None:
    """Raise DigitsError if a format beside those to write has another light.

    A network that is pretrained on one form and trained on another must not see two lights by
    mistake. Formats that always have one light are meant to be beside the others.
    """
    lit = {name for name, form in FORMATS.items() if form.adapt(SceneSettings()).light}
    lights = [records[name]['scene']['light'] for name in lit & records.keys()]
    if not lights:
        return
    for name in lit - records.keys():
        other = lights[0]
        with suppress(OSError, ValueError, TypeError, KeyError):
            other = _read(out / name)['scene']['light']
        if other != lights[0]:
            raise DigitsError(
                f'{out} holds {name} with another light: replace it too, by its name in --formats '
                f'and --force of make_digits, or choose another --out. {_LIGHTS}'
            )


def _is_there(folder: Path, record: dict, force: bool, log: Callable[[str], None]) -> bool:
    """Whether `folder` holds what `record` says; False if it is free or `force` may replace it."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        found = _read(folder)
        theirs, ours = ({**r, **r['scene'], 'scene': None} for r in (found, record))
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError, KeyError):
        # Never replaced, not even by force: it may be somebody's real data.
        raise DigitsError(
            f'{folder} was not written by make_digits (no valid {RECORD} in it): '
            'choose another --out, or remove it yourself'
        ) from None
    if force:
        return False
    if found == record:
        log(f'{record["format"]}: already there, {folder}')
        return True
    differing = sorted(key for key in {*theirs, *ours} if theirs.get(key) != ours.get(key))
    raise DigitsError(
        f'{folder} was written with other settings ({", ".join(differing)} differ): '
        'use --force of make_digits to replace it, or another --out'
        + (f'. {_LIGHTS}' if 'light' in differing else '')
    )


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """Give an empty folder to fill; it takes the place of ``folder`` if nothing was raised."""
    partial = folder.with_name(f'.{folder.name}.partial-{os.getpid()}')
    replaced = folder.with_name(f'.{folder.name}.replaced-{os.getpid()}')
    partial.mkdir()
    try:
        yield partial
        if folder.exists():
            folder.rename(replaced)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(replaced, ignore_errors=True)


def _build(
    folder: Path,
    form: Format,
    settings: DigitsSettings,
    record: dict,
    log: Callable[[str], None],
) -> None:
    start = time.perf_counter()
    maker = form.maker(form.adapt(settings.scene), settings.seed)
    counts = {'train': settings.train, 'val': settings.val}
    with written_whole(folder) as partial:
        form.write(partial, maker, counts)
        (partial / RECORD).write_text(json.dumps(record, indent=2) + '\n', encoding='utf-8')
    seconds = time.perf_counter() - start
    log(f'{record["format"]}: written in {seconds:.1f} s, {folder}')
