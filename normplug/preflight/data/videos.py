"""Check that the list of a video dataset fits the model, and that its clips are there and whole.

mmaction2 notices little of this itself: it repeats a clip that is too short from its start, and
takes earlier frames for those that do not decode.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from mmengine.registry import TRANSFORMS

from ..config_types import class_of, dicts_in
from .dataset_config import chosen_by_indices, spread, transforms
from .decode import UnreadableError, image_size, read_video
from .folders import Folders
from .problems import Problems

__all__ = ['check_clips']

_OPENERS = ('DecordInit', 'PyAVInit', 'OpenCVInit', 'PIMSInit')
# Of a folder of frames, where not everything is decoded: the first, the middle, the last.
_FRAMES = 3


@dataclass(frozen=True)
class _Clip:
    """A line of the list; ``first`` is the number of a folder's first frame."""

    line: str
    path: str
    labels: list[int]
    first: int = 0
    frames: int | None = None


def check_clips(
    dataset: Any,
    key: str,
    config: dict,
    model: Any,
    scope: str | None,
    decoded: int | None,
    problems: Problems,
) -> None:
    """Check a list and the clips in it.

    Args:
        dataset: mmaction2's ``VideoDataset`` or ``RawframeDataset``, not fully initialized.
        key: its config key.
        config: its config.
        model: the model's config.
        scope: registry scope of the pipeline.
        decoded: how many clips to open, spread evenly; None for all, and all of their frames.
        problems: what is found goes there.
    """
    _Check(dataset, key, config, scope, decoded, problems).run(model)


class _Check:
    def __init__(
        self,
        dataset: Any,
        key: str,
        config: dict,
        scope: str | None,
        decoded: int | None,
        problems: Problems,
    ) -> None:
        self.dataset, self.key, self.config, self.scope = dataset, key, config, scope
        self.decoded, self.problems = decoded, problems
        self.place = f'{key}.ann_file {dataset.ann_file}'
        self.of_frames = hasattr(dataset, 'filename_tmpl')
        self.form = 'FILE LABEL'
        if self.of_frames:
            self.form = f'FOLDER{" OFFSET" * dataset.with_offset} FRAMES LABEL'
        if dataset.multi_class:
            self.form += ' LABEL ...'
        sampling = transforms(config, 'SampleFrames')
        self.sampling = sampling[0] if sampling else {}

    def run(self, model: Any) -> None:
        kind = 'img' if self.of_frames else 'video'
        if kind not in self.dataset.data_prefix:
            advice = f'Set {self.key}.data_prefix = dict({kind}=FOLDER)'
            found = ', '.join(self.dataset.data_prefix)
            self._error(f'keys in place of {kind}', found, advice, f'{self.key}.data_prefix')
            return
        clips = self._read_list(self.dataset.data_prefix[kind] or '')
        self._check_labels(clips, model)
        openers = transforms(self.config, *_OPENERS, 'RawFrameDecode')
        if any(t.get('io_backend', 'disk') not in ('disk', 'local') for t in openers):
            self.problems.unseen.append(f'{self.key}: its clips are not on this machine')
            return
        folders, there = Folders(), []
        for clip in clips:
            if folders.has(clip.path):
                there.append(clip)
                continue
            what = 'folders of frames' if self.of_frames else 'videos'
            advice = f'Put them there, take their lines out, or set {self.key}.data_prefix'
            self._error(f'{what} that are missing', f'{clip.line}, {clip.path}', advice)
        if self.of_frames:
            self._check_frames(there)
        else:
            self._check_videos(there, openers)

    def _read_list(self, folder: str) -> list[_Clip]:
        try:
            with open(self.dataset.ann_file, encoding='utf-8') as file:
                lines = [line.rstrip('\n\r') for line in file]
        except UnicodeDecodeError as error:
            advice = f'It must have lines {self.form}'
            self._error('files that are no text', str(error), advice)
            return []
        if not lines:
            self._error('empty files', self.dataset.ann_file, 'Write or download it again')
        clips = []
        for number, text in enumerate(lines, 1):
            try:
                clips.append(self._parse(f'line {number}', text, folder))
            except ValueError:
                advice = f'Each line is {self.form}, the labels from 0'
                if not self.of_frames:
                    mark = repr(self.dataset.delimiter)
                    advice += f', with {mark} ({self.key}.delimiter) between them and in no name'
                case = f'line {number}, {text!r}'
                self._error(f'lines that are not {self.form}', case, advice)
        return chosen_by_indices(clips, self.dataset)

    def _parse(self, line: str, text: str, folder: str) -> _Clip:
        """As load_data_list does, but a label must be there."""
        name, *rest = text.strip().split(None if self.of_frames else self.dataset.delimiter)
        numbers = [int(part) for part in rest]
        offset = numbers.pop(0) if self.of_frames and self.dataset.with_offset and numbers else 0
        frames = numbers.pop(0) if self.of_frames and numbers else None
        count = len(numbers)
        if not name or count < 1 or (count > 1 and not self.dataset.multi_class):
            raise ValueError
        first = offset + self.dataset.start_index
        return _Clip(line, os.path.join(folder, name), numbers, first, frames)

    def _check_labels(self, clips: list[_Clip], model: Any) -> None:
        counts = {f'{self.key}.num_classes': self.dataset.num_classes}
        for name, part, _ in dicts_in(model, 'model'):
            if name.rpartition('.')[2] == 'cls_head':
                counts[f'{name}.num_classes'] = part.get('num_classes')
        counts = {name: count for name, count in counts.items() if isinstance(count, int)}
        if self.dataset.multi_class and self.dataset.num_classes is None:
            self._error('values of multi_class without num_classes', 'True', 'Set both', self.key)
        if not counts:
            return
        name = min(counts, key=counts.get)
        for clip in clips:
            for label in clip.labels:
                if not 0 <= label < counts[name]:
                    advice = f'{name} is {counts[name]}, so they are from 0 to {counts[name] - 1}: '
                    advice += 'correct the list, or the number'
                    self._error('labels out of range', f'{clip.line}, {label}', advice)

    def _check_videos(self, clips: list[_Clip], openers: list[dict]) -> None:
        kind = class_of(openers[0], TRANSFORMS, self.scope) if openers else None
        arguments = {k: v for k, v in openers[0].items() if k != 'type'} if kind else {}
        opener = kind(**arguments) if kind else None

        def read(clip: _Clip) -> tuple[int, float | None] | UnreadableError:
            try:
                frames = read_video(clip.path)
                if opener is None:
                    return frames, None
                opened = opener.transform({'filename': clip.path})
            except UnreadableError as error:
                return error
            except Exception as error:  # each library raises its own kinds
                cause = str(error).strip().partition('\n')[0]
                return UnreadableError(f'cannot be opened by {kind.__name__} ({cause})')
            return opened['total_frames'], opened.get('avg_fps')

        chosen = [clips[i] for i in spread(len(clips), self.decoded)]
        found = self._in_threads(read, chosen)
        for clip, result in zip(chosen, found, strict=True):
            if isinstance(result, UnreadableError):
                advice = 'Copy or download them again, or take their lines out'
                case = f'{clip.line}, {clip.path} {result}'
                self._error('videos that cannot be read', case, advice)
            else:
                self._check_length(clip, *result)

    def _check_frames(self, clips: list[_Clip]) -> None:
        for clip in clips:
            self._check_length(clip, clip.frames, None)
        chosen = [clips[i] for i in spread(len(clips), self.decoded)]
        for clip, (missing, broken) in zip(
            chosen, self._in_threads(self._frames, chosen), strict=True
        ):
            if missing:
                more = f' and {len(missing) - 1} more' if len(missing) > 1 else ''
                advice = 'Extract them again, or correct the number of frames in the list, or '
                advice += f'{self.key}.filename_tmpl or start_index'
                case = f'{clip.line}, {missing[0]}{more}'
                self._error('frames that are missing', case, advice)
            for error in broken:
                advice = 'Copy or extract them again, or take the line out'
                self._error('frames that cannot be read', f'{clip.line}, {error}', advice)

    def _frames(self, clip: _Clip) -> tuple[list[str], list[str]]:
        """The paths of missing frames, and of broken ones with the reason."""
        template, flow = self.dataset.filename_tmpl, self.dataset.modality == 'Flow'
        numbers = range(clip.first, clip.first + clip.frames)
        planes = [('x', n) for n in numbers] + [('y', n) for n in numbers] if flow else None
        names = [template.format(*which) for which in planes or zip(numbers, strict=True)]
        paths, folders = [os.path.join(clip.path, name) for name in names], Folders()
        missing = [path for path in paths if not folders.has(path)]
        there = [path for path in paths if folders.has(path)]
        broken = []
        for i in spread(len(there), self.decoded and _FRAMES):
            try:
                image_size(there[i])
            except UnreadableError as error:
                broken.append(f'{there[i]} {error}')
        return missing, broken

    def _check_length(self, clip: _Clip, frames: int, rate: float | None) -> None:
        """Compare with what SampleFrames takes for one clip."""
        sampling = self.sampling
        length, interval = sampling.get('clip_len', 1), sampling.get('frame_interval', 1)
        asked = length * interval
        if sampling.get('target_fps') and rate:
            asked = max(1, round(asked * rate / sampling['target_fps']))
        elif sampling.get('test_mode'):
            asked = (length - 1) * interval + 1
        if frames >= asked:
            return
        case = f'{clip.line}, {clip.path} has {frames}'
        what = f'clips of less than the {asked} frames that SampleFrames takes'
        how = sampling.get('out_of_bound_opt')
        if frames > 0 and how:
            advice = f'out_of_bound_opt={how!r} says what mmaction2 does with them'
            self.problems.warn(self.place, what, case, advice)
            return
        advice = 'Take the lines out, or set clip_len or frame_interval lower. Or set '
        advice += (
            "out_of_bound_opt of SampleFrames: 'loop' to begin anew, 'repeat_last' to stop there"
        )
        self._error(what, case, advice)

    def _error(self, what: str, case: str, advice: str, place: str | None = None) -> None:
        self.problems.error(place or self.place, what, case, advice)

    @staticmethod
    def _in_threads(read: Callable[[_Clip], Any], clips: list[_Clip]) -> list[Any]:
        with ThreadPoolExecutor() as pool:  # decoding holds no lock
            return list(pool.map(read, clips))
