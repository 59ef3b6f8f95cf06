"""The commands of `python -m normplug`."""

import subprocess
import sys

import pytest

from normplug.__main__ import main
from normplug.experiments.reproduce.tables import TABLES


@pytest.mark.parametrize(
    ('argv', 'message'),
    [
        (['run', 'no/such/script.py', '--flag'], 'there is no script no/such/script.py'),
        (['run'], 'required: SCRIPT'),
        (['fly'], "invalid choice: 'fly'"),
        (['train'], 'python -m normplug train: error: the following arguments are required'),
        (['test', 'config.py'], 'python -m normplug test: error: the following arguments are re'),
    ],
)
def test_a_wrong_command_line_exits_with_2(argv, message, capsys):
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_the_commands_are_those_of_tools(capsys, tmp_path):
    """Their options reach them, --help too, and their messages bear the name of the command."""
    for command, option in (
        ('train', '--resume'),
        ('test', '--tta'),
        ('check-data', '--phases'),
        ('convert-checkpoint', '--logit-init'),
        ('batch-average', '--batches'),
        ('plot-ratios', '--out'),
        ('plot-batch-noise', '--overwrite'),
        ('reproduce', '--seeds'),
        ('export-onnx', '--shape'),
        ('deploy', '--fold'),
        ('benchmark', '--shapes'),
        ('gpu-check', '--only'),
    ):
        with pytest.raises(SystemExit) as caught:
            main([command, '--help'])
        assert caught.value.code == 0
        out = capsys.readouterr().out
        assert out.startswith(f'usage: python -m normplug {command} ')
        assert option in out
    assert main(['train', 'no/such.py', '--work-dir', str(tmp_path / 'work')]) == 2
    assert capsys.readouterr().err == (
        'python -m normplug train: error: config file no/such.py does not exist\n'
    )
    assert not any(tmp_path.iterdir())


def test_what_micro_batch_was_says_what_to_type(capsys):
    assert main(['micro-batch', '--norms', 'bn']) == 2
    error = capsys.readouterr().err
    assert error.startswith('python -m normplug micro-batch: error: ')
    (command,) = (line.split() for line in error.splitlines() if line.startswith('    '))
    assert command[:4] == ['python', '-m', 'normplug', 'reproduce']
    assert command[4] in TABLES


def test_a_config_of_ours_is_named_by_the_prefix(capsys):
    assert main(['train', 'normplug::faster_rcnn/faster-rcnn_r18-w32_fpn_ns_digits.py']) == 2
    error = capsys.readouterr().err
    assert 'normplug has no config normplug::faster_rcnn/faster-rcnn_r18-w32_fpn_ns' in error
    assert error.endswith('Near it: normplug::faster_rcnn/faster-rcnn_r18-w32_fpn_sn_digits.py\n')


def test_make_digits(tmp_path, capsys):
    pytest.importorskip('sklearn')
    out = str(tmp_path / 'digits')
    size = ['--train', '2', '--val', '1', '--size', '64']
    assert main(['make-digits', '--out', out, '--formats', 'coco', *size]) == 0
    assert (tmp_path / 'digits/coco/annotations/instances_train.json').is_file()
    with pytest.raises(SystemExit) as caught:
        main(['make-digits', '--out', out, '--formats', 'none'])
    assert caught.value.code == 2
    assert 'python -m normplug make-digits: error: --formats none' in capsys.readouterr().err


def test_a_command_without_its_packages_says_what_to_install(monkeypatch, capsys):
    for module in [name for name in sys.modules if name.startswith('normplug.data')]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, 'sklearn', None)
    monkeypatch.setitem(sys.modules, 'sklearn.datasets', None)
    assert main(['make-digits']) == 2
    error = capsys.readouterr().err
    assert error.startswith('python -m normplug make-digits: error: import of sklearn')
    assert error.endswith("pip install 'normplug[mm,demo]'\n")


SCRIPT = """
import sys
from mmcv.ops import nms
from mmengine.registry import MODELS
import beside_the_script
print(__name__, sys.argv[1:], sys.argv[0] == __file__, 'SN' in MODELS.module_dict)
if __name__ == '__main__':
    sys.exit(3)
"""


@pytest.mark.slow
def test_run_executes_a_script_as_main(tmp_path):
    pytest.importorskip('mmcv')
    script = tmp_path / 'script.py'
    script.write_text(SCRIPT)
    (tmp_path / 'beside_the_script.py').touch()
    done = subprocess.run(
        [sys.executable, '-m', 'normplug', 'run', str(script), 'config.py', '--help', '-x=1'],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3, done.stderr
    assert done.stdout == "__main__ ['config.py', '--help', '-x=1'] True True\n"
