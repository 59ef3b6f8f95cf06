import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

TESTS = Path(__file__).parents[1]
sys.path.append(str(TESTS / 'launch'))  # launch_tiny

from bad_input_projects import (  # noqa: E402
    CLASSIFICATION,
    DETECTION,
    SEGMENTATION,
    VIDEO,
    DataProject,
    contents,
)
from launch_tiny import Project  # noqa: E402

from normplug.launch import load_config  # noqa: E402
from normplug.preflight.data import check_data  # noqa: E402


@pytest.fixture(autouse=True)
def no_environment_report(monkeypatch):
    """Save a second a runner: for its log, mmengine asks the compilers for their versions."""
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)


@pytest.fixture
def tool():
    """The `main` of a script in tools/."""

    def load(name):
        spec = importlib.util.spec_from_file_location(
            f'{name}_tool', TESTS.parent / f'tools/{name}.py'
        )
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.main

    return load


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of the test's own, which is the current one: what is written lands there."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tiny(folder):
    return Project(folder)


@pytest.fixture
def detection(folder):
    pytest.importorskip('mmdet')
    return DataProject(folder, DETECTION)


@pytest.fixture
def segmentation(folder):
    pytest.importorskip('mmseg')
    return DataProject(folder, SEGMENTATION)


@pytest.fixture
def classification(folder):
    pytest.importorskip('mmpretrain')
    project = DataProject(folder, CLASSIFICATION)
    for phase in ('train', 'val'):
        for i, path in enumerate(sorted(project.images.iterdir())):
            target = folder / 'data' / phase / ('cat', 'dog')[i % 2] / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return project


@pytest.fixture
def video(folder):
    """Three videos of 10 frames (cat, dog, cat), and the same as folders of frames."""
    pytest.importorskip('mmaction')
    cv2 = pytest.importorskip('cv2')
    project = DataProject(folder, VIDEO)
    lines = {'train': [], 'frames': []}
    for i in range(3):
        name = f'{("cat", "dog")[i % 2]}/{i}'
        lines['train'].append(f'{name}.mp4 {i % 2}')
        lines['frames'].append(f'{name} 10 {i % 2}')
        (folder / 'data/frames' / name).mkdir(parents=True)
        path = folder / f'data/videos/{name}.mp4'
        path.parent.mkdir(parents=True, exist_ok=True)
        frames = np.random.default_rng(i).integers(0, 255, (10, 32, 40, 3), np.uint8)
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), 30, (40, 32))
        for number, frame in enumerate(frames, 1):
            writer.write(frame)
            project.save(folder / f'data/frames/{name}/img_{number:05d}.jpg', frame)
        writer.release()
    for name, text in lines.items():
        (folder / f'data/{name}.txt').write_text('\n'.join(text) + '\n')
    return project


@pytest.fixture
def told():
    """Check a row's data, which must be accepted: with one line for the log, or none."""

    def check(project, row, phases=('train', 'val')):
        row.make(project)
        lines = check_data(load_config('config.py'), phases)
        assert len(lines) == bool(row.messages)
        for message in row.messages:
            assert message in lines[0]

    return check


@pytest.fixture
def refused(folder, capsys):
    """Run a tool that must refuse: exit code 2, the messages, no traceback, nothing written."""

    def check(main, argv, messages):
        before = contents(folder)
        capsys.readouterr()
        try:
            code = main([str(arg) for arg in argv])
        except SystemExit as end:  # argparse's way
            code = end.code
        error = capsys.readouterr().err
        assert code == 2, error
        assert 'Traceback' not in error
        assert 'error: ' in error
        for message in messages:
            assert message in error
        assert contents(folder) == before

    return check
