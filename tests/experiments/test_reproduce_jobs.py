"""Jobs of tools/reproduce.py: what is planned, how it runs, what is kept of it."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import CheckpointLoader

from normplug.data.build import DigitsSettings
from normplug.data.scene import SceneSettings
from normplug.errors import UserError
from normplug.experiments.reproduce.cli import _folder, main_reproduce
from normplug.experiments.reproduce.jobs import Job, Settings, plan
from normplug.experiments.reproduce.launchers import Launcher, make_launcher
from normplug.experiments.reproduce.needs import check_needs
from normplug.experiments.reproduce.records import BEGUN, DONE, begin, finish, is_begun, read_done
from normplug.experiments.reproduce.rows import Row
from normplug.experiments.reproduce.run import LOG, Failure, run_jobs, threads_of
from normplug.experiments.reproduce.tables import TABLES

TABLE3 = TABLES['table3']
IBN = TABLES['ibn-gta5']


class Shell(Launcher):
    """Runs the 'config' of a job as a line of shell."""

    def command(self, tool, name, files, arguments):
        return ['sh', '-c', files[0], 'sh', *arguments]


def job(tmp_path, name, line, needs=()):
    folder = tmp_path / name / 'train'
    return Job(
        name, folder, line, Config({'a': 1}), (), tuple(tmp_path / n / 'train' for n in needs)
    )


def outcomes(jobs, processes=1, done=()):
    return {job.name: outcome for job, outcome in run_jobs(jobs, set(done), Shell(), processes)}


def settings(tmp_path, launcher=None, **options):
    return Settings('digits', tmp_path, launcher or Launcher(), options)


def test_rows_share_their_pretraining_and_seeds_do_too(tmp_path):
    made = plan({TABLE3: TABLE3.rows}, (0, 1), settings(tmp_path))
    pretrained = [f for f in made.jobs if 'imagenet' in str(f)]
    assert {f.parts[-3] for f in pretrained} == {
        f'resnet18-w32_{norm}_1xb32_digits' for norm in ('bn', 'gn', 'sn')
    }
    assert len(made.jobs) == 2 * 5 + 3
    for place, work in made.jobs.items():
        if place not in pretrained:
            (needed,) = work.needs
            assert needed in pretrained
            start = Path(work.cfg.model.backbone.init_cfg.checkpoint)
            assert start == needed / 'epoch_9.pth'
            assert f'model.backbone.init_cfg.checkpoint={start}' in work.options
    assert made.cells['table3', 'SN/SN', 1]['own'].parent.name == 'seed1'


def test_each_seed_has_its_own_pretraining_if_asked(tmp_path):
    own = replace(settings(tmp_path), own_pretraining=True)
    made = plan({TABLE3: TABLE3.rows[:3]}, (0, 2), own)
    pretrained = [f for f in made.jobs if 'imagenet' in str(f)]
    assert [f.parent.name for f in pretrained] == ['seed0', 'seed2']
    for seed, folder in zip((0, 2), pretrained, strict=True):
        assert f'randomness.seed={seed}' in made.jobs[folder].options
        for row in TABLE3.rows[:3]:
            job = made.jobs[made.cells['table3', row.name, seed]['own']]
            assert job.needs == (folder,)
            assert Path(job.cfg.model.backbone.init_cfg.checkpoint).parent == folder
    # Seed 0 is the same either way; another is refused where the other kind lies.
    shared = plan({TABLE3: TABLE3.rows[:3]}, (0, 2), settings(tmp_path))
    for place, job in shared.jobs.items():
        assert (job.fingerprint == made.jobs[place].fingerprint) is ('seed0' in str(place))


def test_a_test_in_the_other_domain_takes_the_last_checkpoint(tmp_path):
    row = IBN.rows[1]
    made = plan({IBN: [row]}, (0,), settings(tmp_path))
    *_, training, test = made.jobs.values()
    assert test.needs == (training.folder,)
    assert test.checkpoint == training.folder / f'iter_{training.cfg.train_cfg.max_iters}.pth'
    assert test.config.endswith('night.py')
    assert not training.config.endswith('night.py')
    command = test.shell_command(Launcher())
    assert command.startswith(f'python tools/test.py {test.config} {test.checkpoint} --work-dir ')


def test_options_reach_the_config_and_the_command(tmp_path):
    made = plan({TABLE3: TABLE3.rows[:1]}, (3,), settings(tmp_path, **{'train_cfg.max_epochs': 7}))
    *_, work = made.jobs.values()
    assert work.cfg.train_cfg.max_epochs == 7
    assert {'train_cfg.max_epochs=7', 'randomness.seed=3'} < set(work.options)
    # The pretraining, which other rows share, is what it was.
    assert work.cfg.model.backbone.init_cfg.checkpoint.endswith('epoch_9.pth')
    (shared,) = (made.jobs[folder] for folder in work.needs)
    assert shared.cfg.train_cfg.max_epochs == 9
    tables = {table: table.rows[:1] for table in (TABLE3, TABLES['comparison'])}
    longer = settings(tmp_path, **{'train_cfg.max_epochs': 7})
    with pytest.raises(UserError, match=r'is a row and the pretraining of others'):
        plan(tables, (0,), longer)
    wrong = settings(tmp_path, **{'param_scheduler.9.end': 1})
    with pytest.raises(UserError, match=r'--cfg-options does not fit .*Index 9 exceeds'):
        plan({TABLE3: TABLE3.rows[:1]}, (0,), wrong)


def test_rows_of_one_config_are_told_apart_by_their_options(tmp_path):
    scale = TABLES['table5-ade20k'].rows[1].digits
    at_1 = replace(scale, variant='_b1', options={'train_dataloader.batch_size': 1})
    rows = tuple(Row(str(number), None, s) for number, s in enumerate((scale, at_1)))
    table = replace(TABLES['table5-ade20k'], rows=rows)
    more = {'train_cfg.max_iters': 800}
    pretraining, *both = plan({table: rows}, (0,), settings(tmp_path, **more)).jobs.values()
    training, test, other, other_test = both
    assert {job.config for job in both} == {training.config}
    assert other.of_row.name == training.of_row.name + '_b1'
    assert other.needs == training.needs == (pretraining.folder,)
    for job, images in ((training, 2), (test, 2), (other, 1), (other_test, 1)):
        assert job.cfg.train_dataloader.batch_size == images
        assert job.cfg.train_cfg.max_iters == 800
        assert ('train_dataloader.batch_size=1' in job.options) == (images == 1)
    assert other_test.checkpoint == other.folder / 'iter_800.pth'


def test_another_number_of_processes_is_another_training(tmp_path):
    one, two = (
        plan({TABLE3: TABLE3.rows[:1]}, (0,), settings(tmp_path, Launcher(n))).jobs for n in (1, 2)
    )
    assert list(one) == list(two)
    for folder, work in one.items():
        assert work.fingerprint != two[folder].fingerprint


ON_DIGITS = {n: t for n, t in TABLES.items() if any(row.digits for row in t.rows)}


@pytest.mark.parametrize('table', ON_DIGITS.values(), ids=ON_DIGITS)
def test_digits_need_nothing_but_their_data(table, tmp_path, monkeypatch):
    made = plan({table: table.rows}, (0,), settings(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        check_needs(made.jobs.values())
    paths = [line.split()[0] for line in str(error.value).splitlines() if line.startswith('  ')]
    assert paths
    assert all(path.startswith('work_dirs/data/digits/') for path in paths)


def test_weights_are_downloaded_before_anything_starts(tmp_path, monkeypatch):
    asked = []

    def load_checkpoint(path, map_location):
        asked.append(path)
        raise URLError('no route')

    monkeypatch.setattr(CheckpointLoader, 'load_checkpoint', load_checkpoint)
    table = TABLES['table5-ade20k']
    made = plan({table: table.rows[1:2]}, (0, 1), replace(settings(tmp_path), data='real'))
    with pytest.raises(UserError) as error:
        check_needs(made.jobs.values())
    assert 'data/ade/ADEChallengeData2016' in str(error.value)
    assert 'open-mmlab://detectron/resnet50_gn' in str(error.value)
    assert 'no route' in str(error.value)
    assert asked == ['open-mmlab://detectron/resnet50_gn']  # once for both seeds
    with pytest.raises(UserError) as error:
        check_needs(made.jobs.values(), download=False)
    assert 'open-mmlab' not in str(error.value)


def test_a_test_of_other_weights_is_done_again(tmp_path):
    training = job(tmp_path, 'x', 'true')
    test = replace(
        training, folder=tmp_path / 'x/other', checkpoint=training.folder / 'epoch_1.pth'
    )
    for work in (training, test):
        begin(work)
    (training.folder / DONE).write_text(json.dumps({'fingerprint': training.fingerprint}))
    (test.folder / 'now').mkdir()
    (test.folder / 'now/scores.json').write_text('{"mIoU": 1.0}')
    record = finish(test, 1.0, {}, 1)
    assert read_done(test) == record
    (training.folder / DONE).write_text(json.dumps({'fingerprint': training.fingerprint, 'x': 1}))
    assert read_done(test) is None
    finish(test, 1.0, {}, 1)
    assert read_done(test)['metrics'] == {'mIoU': 1.0}
    (training.folder / DONE).unlink()
    assert read_done(test) is None


def test_a_training_is_recorded_by_its_last_evaluation_and_loss(tmp_path):
    cfg = Config({'train_cfg': {'max_epochs': 2}, 'train_dataloader': {'batch_size': 4}})
    training = replace(job(tmp_path, 'x', 'true'), cfg=cfg)
    begin(training)
    torch.save({'state_dict': {}}, training.folder / 'epoch_2.pth')
    (training.folder / 'now/vis_data').mkdir(parents=True)
    lines = [
        {'loss': 1.0 / epoch, 'time': 0.5, 'iter': 10 * epoch, 'memory': 70} for epoch in (1, 2)
    ]
    lines.append({'accuracy/top1': 90.0, 'step': 2})
    scalars = '\n'.join(map(json.dumps, lines))
    (training.folder / 'now/vis_data/scalars.json').write_text(scalars)
    record = finish(training, 1.0, {}, 1)
    assert record['metrics'] == {'accuracy/top1': 90.0, 'step': 2, 'train/loss': 0.5}
    assert record['images_per_second'] == 8.0


def test_launchers(tmp_path):
    several = make_launcher(4, 'local', None)
    assert several.command('train', 'n', ['C'], ['--work-dir', 'W']) == [
        *('bash', 'tools/dist_train.sh', 'C', '4', '--work-dir', 'W'),
    ]
    assert several.env == {'PYTHON': sys.executable}
    slurm = make_launcher(16, 'slurm', 'part')
    assert slurm.command('test', 'n', ['C', 'K'], []) == [
        *('bash', 'tools/slurm_test.sh', 'part', 'n', 'C', 'K'),
    ]
    assert slurm.env == {'GPUS': '16'}
    with pytest.raises(UserError, match='--launcher slurm needs --partition'):
        make_launcher(8, 'slurm', None)
    with pytest.raises(UserError, match='--partition is for'):
        make_launcher(8, 'local', 'part')


def test_jobs_run_after_what_they_need(tmp_path):
    order = tmp_path / 'order'
    jobs = [
        job(tmp_path, 'b', f'echo b >> {order}', needs=['a']),
        job(tmp_path, 'a', f'sleep 0.3; echo a >> {order}'),
        job(tmp_path, 'c', f'echo c >> {order}'),
    ]
    found = outcomes(jobs, processes=2)
    assert all(isinstance(seconds, float) for seconds in found.values())
    assert found['a'] >= 0.3
    assert order.read_text().split() == ['c', 'a', 'b']


def test_a_failure_loses_only_what_needs_it(tmp_path):
    jobs = [
        job(tmp_path, 'bad', 'echo some reason; exit 3'),
        job(tmp_path, 'after', 'true', needs=['bad']),
        job(tmp_path, 'last', 'true', needs=['after']),
        job(tmp_path, 'good', 'true'),
    ]
    found = outcomes(jobs)
    assert isinstance(found['bad'], Failure)
    assert 'exit code 3' in found['bad']
    assert 'some reason' in found['bad']
    assert 'what it needs has failed' in found['after']
    assert 'what it needs has failed' in found['last']
    assert isinstance(found['good'], float)


def test_what_was_begun_goes_on(tmp_path):
    work = job(tmp_path, 'a', 'echo "$@"')
    assert not is_begun(work)
    outcomes([work])
    assert '--resume' not in (work.folder / LOG).read_text()
    (work.folder / 'last_checkpoint').write_text('epoch_1.pth')
    outcomes([work])
    assert '--resume' in (work.folder / LOG).read_text().splitlines()[-1]


def test_jobs_end_when_the_caller_stops(tmp_path):
    work = job(tmp_path, 'a', 'echo $$ > "$2/pid"; exec sleep 100')
    quick = job(tmp_path, 'b', f'while [ ! -s {work.folder}/pid ]; do sleep 0.1; done')
    running = run_jobs([work, quick], set(), Shell(), 2)
    assert next(running)[0] is quick
    running.close()
    with pytest.raises(ProcessLookupError):
        os.kill(int((work.folder / 'pid').read_text()), 0)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='the kernel ends the jobs')
def test_jobs_end_with_a_command_that_is_killed(tmp_path):
    script = (
        'from pathlib import Path; from tests.experiments.test_reproduce_jobs import job, outcomes;'
        f"outcomes([job(Path('{tmp_path}'), 'a', 'echo $$ > \"$2/pid\"; exec sleep 100')])"
    )
    command = subprocess.Popen([sys.executable, '-c', script])
    pid = tmp_path / 'a/train/pid'
    deadline = time.monotonic() + 60
    while not (pid.exists() and pid.read_text()):
        assert command.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    command.kill()
    command.wait()
    state = Path(f'/proc/{pid.read_text().strip()}/stat')
    while state.exists() and state.read_text().rpartition(')')[2].split()[0] != 'Z':
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_other_settings_are_refused(tmp_path):
    work = job(tmp_path, 'a', 'true')
    assert read_done(work) is None
    begin(work)
    assert read_done(work) is None
    changed = replace(work, cfg=Config({'a': 2}))
    with pytest.raises(UserError, match=r'--work-dir: .* a run of other settings'):
        read_done(changed)
    (work.folder / DONE).write_text((work.folder / BEGUN).read_text())
    assert read_done(work) == {'fingerprint': work.fingerprint}
    (work.folder / DONE).write_text('{')
    with pytest.raises(UserError, match=r'done.json cannot be read .* remove it'):
        read_done(work)


def test_runs_on_old_scenes_are_refused(tmp_path, monkeypatch):
    old = DigitsSettings(scene=SceneSettings(light=None))
    for data, same in (('digits', False), ('real', True)):
        new = plan({TABLE3: TABLE3.rows[:1]}, (0,), replace(settings(tmp_path), data=data)).jobs
        with monkeypatch.context() as patched:
            patched.setattr('normplug.experiments.reproduce.digits.DigitsSettings', lambda: old)
            for work in new.values():
                begin(replace(work))
        for work in new.values():
            if same:
                assert read_done(work) is None
                continue
            with pytest.raises(UserError, match=r'of other settings .*or the scenes of the digits'):
                read_done(work)


def test_threads_of_a_process(tmp_path, monkeypatch):
    monkeypatch.setattr(os, 'cpu_count', lambda: 8)
    for data, threads in (('digits', 1), ('real', 4)):
        made = plan({TABLE3: TABLE3.rows[:1]}, (0,), replace(settings(tmp_path), data=data))
        assert {threads_of(work, 2) for work in made.jobs.values()} == {threads}


@pytest.fixture
def heeds_sigint():
    """Even where the tests were started to ignore it, as jobs in the background of a script are."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.usefixtures('heeds_sigint')
def test_ctrl_c_ends_all_and_the_same_command_goes_on(tmp_path, capsys):
    """One tiny row from the command line: interrupted, resumed, skipped, reported."""
    options = ['train_cfg.max_epochs=2', 'train_dataloader.dataset.indices=64']
    argv = ['comparison', '--rows', 'BN (256, 32)', '--seeds', '1', '--work-dir', str(tmp_path)]
    argv += ['--cfg-options', *options]
    command = [sys.executable, 'tools/reproduce.py', *argv]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    (pattern,) = ['digits/imagenet/*/seed0/train']
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob(f'{pattern}/last_checkpoint')):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert 'interrupted' in process.stderr.read()
    (folder,) = tmp_path.glob(pattern)

    # From here on nothing has to end a process: the command runs in this one.
    code, again = main_reproduce(argv), capsys.readouterr()
    assert code == 0, again.err
    assert '0 of 1 jobs are finished' in again.err
    if (folder / 'epoch_2.pth').exists():
        assert 'resumed' in (folder / LOG).read_text()
    assert 'BN (256, 32)' in again.out
    assert (tmp_path / 'digits/comparison.png').exists()

    assert main_reproduce(argv) == 0
    skipped = capsys.readouterr()
    assert '1 of 1 jobs are finished' in skipped.err
    assert skipped.out == again.out


def test_errors_of_the_command_line(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr('normplug.experiments.reproduce.needs._download', lambda path: None)

    def told(*argv):
        assert main_reproduce([*argv, '--work-dir', str(tmp_path)]) == 2
        return capsys.readouterr().err

    assert '--rows: no row XX; there are "BN*/-"' in told('table3', '--rows', 'XX')
    assert '--seeds must be at least 1' in told('table3', '--seeds', '0')
    assert '--data digits: these rows are at the other scale, --data real' in told('practice-trees')
    with pytest.raises(SystemExit, match='2'):
        main_reproduce(['table3', '--cfg-options', 'lr'])
    assert "--cfg-options: 'lr' is not KEY=VALUE" in capsys.readouterr().err
    real = told('table4', '--data', 'real', '--rows', 'SN/SN', 'BN*/-')
    assert 'paths are missing, and nothing was started' in real
    assert 'data/coco' in real
    assert 'cocodataset.org' in real
    assert 'checkpoints/resnet50v1_sn_8x2.pth' in real
    assert not any(tmp_path.iterdir())


def test_a_work_dir_is_the_same_however_it_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written = ('runs/x', './runs/x/', f'{tmp_path}/runs/x', 'runs/../runs/x')
    assert {_folder(path) for path in written} == {Path('runs/x')}
    assert _folder('../x') == tmp_path.parent / 'x'
