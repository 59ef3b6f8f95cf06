"""The wheel, next to the stack and far from this repository, in other people's projects."""

import json
import re
import zipfile
from pathlib import Path

import pytest
from environments import build_wheel, environment_without, run

ROOT = Path(__file__).parents[2]

DETECTOR = """
_base_ = 'normplug::faster_rcnn/faster-rcnn_r18-w32_fpn_sn_digits.py'
model = dict(backbone=dict(init_cfg=None), roi_head=dict(bbox_head=_base_.model.roi_head.bbox_head))
"""
SEGMENTOR = """
_base_ = 'normplug::fcn/fcn_r18-d8-w32_sn_digits-ade.py'
model = dict(backbone=dict(init_cfg=None))
train_cfg = dict(max_iters=2, val_interval=2)
default_hooks = dict(checkpoint=dict(interval=2))
"""
# As a user writes it: the mm package alone, normplug by way of `python -m normplug run`.
INFER_BOXES = """
from mmdet.apis import DetInferencer
inferencer = DetInferencer('detector.py', 'boxes/epoch_1.pth', device='cpu', show_progress=False)
found = inferencer('work_dirs/data/digits/coco/val', no_save_pred=True, no_save_vis=True)
print('norm', type(inferencer.model.backbone.bn1).__name__)
print('images', len(found['predictions']))
"""
INFER_LABELS = """
from pathlib import Path
from mmseg.apis import inference_model, init_model
model = init_model('segmentor.py', 'labels/iter_2.pth', device='cpu')
images = sorted(Path('work_dirs/data/digits/ade/images/validation').iterdir())
labels = inference_model(model, str(images[0])).pred_sem_seg.data
print('norm', type(model.backbone.bn1).__name__, type(model.decode_head.convs[0].bn).__name__)
print('labels', *labels.shape)
"""


class Project:
    """A folder of somebody else's, and a Python that has normplug from its wheel."""

    def __init__(self, folder: Path, wheel: Path):
        self.folder = folder / 'project'
        self.folder.mkdir()
        self.python = environment_without(folder / 'venv', {'normplug'})
        (self.site,) = (folder / 'venv').glob('lib/python*/site-packages')
        with zipfile.ZipFile(wheel) as file:  # all that installing a wheel without scripts is
            file.extractall(self.site)

    def normplug(self, *args: str | Path, returncode: int = 0) -> str:
        """Run `python -m normplug` with `args` in the project; return its output."""
        return run(self.python, '-m', 'normplug', *args, cwd=self.folder, returncode=returncode)

    def tool(self, package: str, name: str) -> Path:
        """Path of a script that the mm package `package` brings along."""
        return self.site / package / '.mim/tools' / name

    def write(self, name: str, text: str) -> str:
        """Write a file of the project; return its name."""
        (self.folder / name).write_text(text)
        return name


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    return build_wheel(tmp_path_factory.mktemp('wheel'))


@pytest.fixture(scope='module')
def project(tmp_path_factory, wheel):
    project = Project(tmp_path_factory.mktemp('elsewhere'), wheel)
    size = ['--train', '4', '--val', '2', '--size', '64']
    project.normplug('make-digits', '--formats', 'coco', 'ade', *size)
    return project


def metric(output: str, name: str) -> float:
    """The last value of `name` in a log."""
    return float(re.findall(rf'{name}: (-?[\d.]+)', output)[-1])


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_the_configs(wheel):
    with zipfile.ZipFile(wheel) as file:
        held = {name for name in file.namelist() if '.dist-info/' not in name}
    package = {p.relative_to(ROOT).as_posix() for p in (ROOT / 'normplug').rglob('*.py')}
    configs = {p.relative_to(ROOT).as_posix() for p in (ROOT / 'configs').rglob('*.py')}
    assert held == package | {f'normplug/.mim/{name}' for name in configs}


@pytest.mark.slow
def test_it_is_the_wheel_that_is_imported(project):
    code = 'import normplug; from importlib.metadata import distribution as d; '
    code += "print(normplug.__file__, d('normplug').locate_file(''), sep='\\n')"
    package, site = run(project.python, '-c', code, cwd=project.folder).split()
    assert Path(package).parent == project.site / 'normplug'
    assert Path(site) == project.site


@pytest.mark.slow
def test_mmdet_trains_tests_and_infers(project):
    pytest.importorskip('mmdet')
    pytest.importorskip('sklearn')
    config = project.write('detector.py', DETECTOR)
    train, test = (project.tool('mmdet', name) for name in ('train.py', 'test.py'))
    project.normplug('run', train, config, '--work-dir', 'boxes')
    checkpoint = 'boxes/epoch_1.pth'

    # mmdet's tool on the config with the base, ours on the one that the training wrote out.
    out = project.normplug('run', test, config, checkpoint, '--work-dir', 'theirs')
    theirs = metric(out, 'coco/bbox_mAP')
    out = project.normplug('test', f'boxes/{config}', checkpoint, '--work-dir', 'ours')
    assert theirs == metric(out, 'coco/bbox_mAP')
    assert theirs >= 0
    results = [json.loads(p.read_text()) for p in project.folder.glob('*/*/*.json')]
    assert all('coco/bbox_mAP' in result for result in results if 'loss' not in result)

    out = project.normplug('run', project.write('infer_boxes.py', INFER_BOXES))
    assert 'norm SN\n' in out
    assert 'images 2\n' in out


@pytest.mark.slow
def test_mmseg_trains_and_infers(project):
    pytest.importorskip('mmseg')
    pytest.importorskip('sklearn')
    config = project.write('segmentor.py', SEGMENTOR)
    train = project.tool('mmseg', 'train.py')
    out = project.normplug('run', train, config, '--work-dir', 'labels')  # which evaluates
    assert 0 <= metric(out, 'mIoU') <= 100
    out = project.normplug('run', project.write('infer_labels.py', INFER_LABELS))
    assert 'norm SN SN\n' in out
    assert 'labels 1 64 64\n' in out


@pytest.mark.slow
def test_without_normplug_before_it_the_base_is_refused_by_mmengine(project):
    """What docs/installed_package.md says: the day this fails, `run` is no longer needed."""
    pytest.importorskip('mmdet')
    config = project.write('refused.py', DETECTOR)
    tool = project.tool('mmdet', 'train.py')
    out = run(project.python, tool, config, cwd=project.folder, returncode=1)
    assert 'mmengine does not support to load normplug config' in out
