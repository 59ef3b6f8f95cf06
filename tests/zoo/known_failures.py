"""What does not work with the versions of tools/constraints.txt, and docs/matrix.md's account."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tests.zoo.cases import CASES, Case

ROOT = Path(__file__).parents[2]
PACKAGES = {'mmdet': 'mmdet', 'mmseg': 'mmsegmentation', 'mmpretrain': 'mmpretrain'}
STEPS = ('build', 'training', 'prediction')


@dataclass(frozen=True)
class Failure:
    """A config that fails, whatever the normalizer.

    Attributes:
        config: as in :class:`Case`.
        step: the first of `STEPS` that fails.
        error: what it raises.
        message: a regular expression that is found in its message.
        cause: for the documentation.
        present: whether the cause is there, where that depends on the environment.
    """

    config: str
    step: str
    error: type[Exception]
    message: str
    cause: str
    present: Callable[[], bool] = lambda: True


def no_scikit_image() -> bool:
    return find_spec('skimage') is None


FAILURES = [
    Failure(
        'mmdet/boxinst/boxinst_r50_fpn_ms-90k_coco.py',
        'build',
        RuntimeError,
        'skimage is not installed',
        'needs scikit-image, which is no requirement of mmdet; runs with it',
        no_scikit_image,
    ),
    Failure(
        'mmdet/ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py',
        'prediction',
        AttributeError,
        "'SSDHead' object has no attribute 'loss_cls'",
        'mmdet 3.3.0: its SSD head cannot predict (open-mmlab/mmdetection#11780)',
    ),
]

# Whose own code ignores `norm_cfg` somewhere.
PLACED = [case for case in CASES if case.placement and case.norm == 'SN']


def known_failure(case: Case) -> Failure | None:
    """What is known to fail in `case`, here."""
    for failure in FAILURES:
        if failure.config == f'{case.scope}/{case.config}' and failure.present():
            return failure
    return None


def section() -> str:
    """The section of docs/matrix.md, as FAILURES and CASES have it; the tests prove both."""
    pins = (ROOT / 'tools/constraints.txt').read_text().splitlines()
    versions = dict(pin.split('==') for pin in pins if '==' in pin)
    lines = [
        '## Model zoos',
        '',
        'Shown by the slow tests in `tests/zoo`: one config of each family, made small, with SN',
        'for every batch and group norm; some again with SSN, IBN, linked KN, SyncSN, SW, GW,',
        'IterNorm or PN. "Trained": a step in which loss and gradients are finite and every',
        'normalizer learns. "Predicted": one image. On the CPU; mmcv '
        f'{versions["mmcv"]} without compiled operators.',
        '',
        '| package | models | built | trained | predicted |',
        '| --- | --- | --- | --- | --- |',
    ]
    for scope, package in PACKAGES.items():
        cases = [case for case in CASES if case.scope == scope]
        failed = {failure.config: STEPS.index(failure.step) for failure in FAILURES}
        first = [failed.get(f'{scope}/{case.config}', len(STEPS)) for case in cases]
        passed = [str(sum(step > i for step in first)) for i in range(len(STEPS))]
        lines.append(f'| {package} {versions[package]} | {len(cases)} | {" | ".join(passed)} |')
    lines += ['', '| what fails | at | why |', '| --- | --- | --- |']
    lines += [f'| `{failure.config}` | {failure.step} | {failure.cause} |' for failure in FAILURES]
    lines += [
        '',
        f'In {len(PLACED)} of them norms that no `norm_cfg` reaches are set by `NormPlacement`:',
        '[which parts, and how](placement.md#where-norm_cfg-does-not-reach).',
    ]
    return '\n'.join(lines) + '\n'
