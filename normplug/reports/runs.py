"""Read a run back from its work_dir: what mmengine's LocalVisBackend and CheckpointHook left."""

import json
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ['Run', 'read_run', 'read_scalars']

_OF_LAYERS = ('ratio/', 'batch_noise/')  # tags of NormRatioHook and BatchNoiseHook


@dataclass
class Run:
    """One training.

    Attributes:
        name: what tables and figures call it.
        work_dir: where it was written.
        train: the logged training records, each with 'iter' and what was averaged, such as 'loss'
            and 'time' (seconds an iteration).
        val: the evaluations, each with 'step' and metrics such as 'coco/bbox_mAP'.
    """

    name: str
    work_dir: Path
    train: list[dict] = field(default_factory=list)
    val: list[dict] = field(default_factory=list)

    @property
    def checkpoint(self) -> Path:
        """The last checkpoint, as `last_checkpoint` names it."""
        return self.work_dir / Path((self.work_dir / 'last_checkpoint').read_text().strip()).name

    @property
    def train_seconds(self) -> float:
        """Time spent in training iterations, loading of data included, evaluation excluded."""
        seconds, before = 0.0, 0
        for record in self.train:
            seconds += record['time'] * (record['iter'] - before)
            before = record['iter']
        return seconds

    @property
    def peak_memory(self) -> int | None:
        """The largest logged memory in MB: of the GPU, or of the process on the CPU."""
        logged = [record['memory'] for record in self.train if 'memory' in record]
        return max(logged) if logged else None


def read_run(work_dir: str | Path, name: str | None = None) -> Run:
    """Read the training in ``work_dir``, and put together what it wrote before and after resuming.

    Records of iterations that a resumed (or restarted) training did again are those of the last.

    Raises:
        FileNotFoundError: no training has written its records there.
    """
    work_dir = Path(work_dir)
    records: list[dict] = []
    for path in sorted(work_dir.glob('*/vis_data/scalars.json')):
        part = _records(path)
        first = next((record['iter'] for record in part if 'loss' in record), None)
        if first is None:  # a last evaluation that was made up for
            records += [record for record in part if record not in records]
            continue
        again = (i for i, old in enumerate(records) if 'loss' in old and old['iter'] >= first)
        records = records[: next(again, len(records))] + part
    if not any('loss' in record for record in records):
        raise FileNotFoundError(
            f'{work_dir}: no */vis_data/scalars.json with training records; train into it first'
        )
    train = [record for record in records if 'loss' in record]
    val = [record for record in records if 'loss' not in record and not _of_layers(record)]
    return Run(name or work_dir.name, work_dir, train, val)


def read_scalars(work_dir: str | Path, tag: str) -> dict[int, dict[str, dict[str, float]]]:
    """Iterations done → layer → quantity → value, of the latest training in ``work_dir``.

    Of the scalars ``tag/<layer>/<quantity>``; in order, empty if there are none. The file of a
    resumed training takes up that of the training before.
    """
    evolution: dict[int, dict[str, dict[str, float]]] = {}
    for path in sorted(Path(work_dir).glob('*/vis_data/scalars.json')):
        logged = {}
        for record in _records(path):
            layers: dict[str, dict[str, float]] = {}
            for name, value in record.items():
                layer, _, quantity = name.removeprefix(f'{tag}/').rpartition('/')
                if name.startswith(f'{tag}/') and layer:
                    layers.setdefault(layer, {})[quantity] = value
            if layers:
                logged[record['step']] = layers
        if logged:
            first = min(logged)
            evolution = {step: found for step, found in evolution.items() if step < first} | logged
    return dict(sorted(evolution.items()))


def _records(path: Path) -> list[dict]:
    records = []
    for line in path.read_text().splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:  # the last line of a killed training
            continue
    return records


def _of_layers(record: dict) -> bool:
    """Whether a hook wrote it that looks at layers."""
    return any(tag.startswith(_OF_LAYERS) for tag in record)
