"""Ratios read from checkpoints and records, and tools/plot_ratios.py."""

import csv
import io
import json

import cv2
import pytest
import torch
from torch import nn

from normplug import SN
from normplug.checkpoints.source import CheckpointError
from normplug.norms import SSN, SW
from normplug.norms.ssn import set_radius
from normplug.reports.plot_ratios import main_plot_ratios
from normplug.reports.ratios import ratio_rows, read_evolution, read_ratios


def model():
    """All forms of SN and SSN; of the sparse ones, one has decided on its means."""
    layers = {'b': SN(4, logit_init='bn'), 'a': SN(4, using_bn=False), 'no_in': SN(4, using_in=0)}
    layers |= {'sparse': SSN(4), 'pair': SSN(4, using_bn=False)}
    net = nn.ModuleDict({**layers, 'bn': nn.BatchNorm2d(4)})
    with torch.no_grad():
        net['sparse'].mean_weight.copy_(torch.tensor([3.0, 0.0, 0.0]))
        net['sparse'].var_weight.copy_(torch.tensor([0.5, 0.4, 0.1]))
    set_radius(net['sparse'], 0.5)
    return net


def save(path, net, **more):
    torch.save({'state_dict': net.state_dict(), **more}, path)
    return path


def test_a_checkpoint_alone_gives_what_its_layers_give(tmp_path):
    net = model()
    ratios = read_ratios(save(tmp_path / 'a.pth', net))
    assert list(ratios) == ['b', 'a', 'no_in', 'sparse', 'pair']
    for name, found in ratios.items():
        assert list(found) == ['mean', 'variance']
        for values, want in zip(found.values(), net[name].ratios(), strict=True):
            assert list(values) == [n.upper() for n in net[name].normalizers], name
            assert list(values.values()) == want.tolist(), name
    assert ratios['sparse']['mean'] == {'IN': 1.0, 'LN': 0.0, 'BN': 0.0}
    assert ratios['sparse']['variance']['BN'] < 0.1


def test_the_layer_itself_and_the_released_layout(tmp_path):
    layer = SSN(4)
    state = {f'module.bn1.{name}': value for name, value in layer.state_dict().items()}
    for part in ('mean', 'var'):
        del state[f'module.bn1.{part}_choice']
        state[f'module.bn1.{part}_fixed'] = torch.ones(1)
        state[f'module.bn1.{part}_weight'] = torch.tensor([0.0, 1.0, 0.0])
    state['module.bn1.radius'] = torch.ones(1)
    torch.save({'state_dict': state}, tmp_path / 'released.pth')
    want = {'IN': 0.0, 'LN': 1.0, 'BN': 0.0}
    assert read_ratios(tmp_path / 'released.pth') == {'bn1': {'mean': want, 'variance': want}}


@pytest.mark.parametrize(
    ('state', 'message'),
    [
        ({'weight': torch.ones(4)}, r'has no SN, SSN or SW \(no key ends in \.mean_weight or'),
        ({'bn1.mean_weight': torch.ones(3)}, r'bn1 is no layer of SN, SSN or SW'),
        ({'bn1.mean_weight': torch.ones(3), 'bn1.var_weight': torch.ones(2)}, 'bn1 is no layer'),
        ({'bn1.sw_mean_weight': torch.ones(4)}, 'bn1 is no layer of .*sw_type must be one of 2, 3'),
        ({'epoch': 3}, 'holds no state dict'),
    ],
)
def test_what_has_no_ratios(tmp_path, state, message):
    torch.save(state, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match=message):
        read_ratios(tmp_path / 'a.pth')


def whitening():
    net = nn.ModuleDict({
        'five': SW(32, sw_type=5), 'tied': SW(6, sw_type=3, tie_weight=True), 'sn': SN(4),
    })  # fmt: skip
    with torch.no_grad():
        net['five'].sw_mean_weight.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]))
        net['tied'].sw_mean_weight[1] += 1
    return net


def test_switchable_whitening(tmp_path, capsys):
    net = whitening()
    ratios = read_ratios(save(tmp_path / 'a.pth', net))
    for name, found in ratios.items():
        for values, want in zip(found.values(), net[name].ratios(), strict=True):
            assert list(values) == [n.upper() for n in net[name].normalizers], name
            assert list(values.values()) == want.tolist(), name
    assert list(ratios['five']['mean']) == ['BW', 'IW', 'BN', 'IN', 'LN']
    assert ratios['tied']['mean'] == ratios['tied']['variance']
    assert main_plot_ratios([str(tmp_path / 'a.pth')]) == 0
    assert is_picture(tmp_path / 'a_ratios.png')
    table = rows((tmp_path / 'a_ratios.csv').read_text())
    assert list(table[0]) == ['layer', 'statistic', 'IN', 'LN', 'BN', 'IW', 'BW', 'choice']
    assert [row['BW'] for row in table[2:]] == ['0.211942', '0.211942', '', '']


def log(work_dir, timestamp, *steps, layer='bn1'):
    folder = work_dir / timestamp / 'vis_data'
    folder.mkdir(parents=True)
    lines = [json.dumps({'loss': 1.0, 'step': 1})]
    for step, ratio in steps:
        record = {'step': step, 'ratio/decided_layers': 0.0}
        for tag in ('mean', 'var'):
            record |= {f'ratio/{layer}/{tag}_in': ratio, f'ratio/{layer}/{tag}_ln': 1 - ratio}
        lines.append(json.dumps(record))
    (folder / 'scalars.json').write_text('\n'.join(lines) + '\n{"ratio/bn1/mean_in": 0.')


def ratios_in(evolution):
    return {step: ratios['bn1']['variance']['IN'] for step, ratios in evolution.items()}


def test_records_of_a_resumed_training_are_joined(tmp_path):
    log(tmp_path, '20260101_000000', (0, 0.9), (10, 0.9))  # another training before
    log(tmp_path, '20260102_000000', (0, 0.5), (10, 0.4), (20, 0.3), (30, 0.2))
    log(tmp_path, '20260103_000000', (20, 0.35), (40, 0.1))  # resumed at 10
    want = {0: 0.5, 10: 0.4, 20: 0.35, 40: 0.1}
    evolution = read_evolution(tmp_path)
    assert ratios_in(evolution) == want
    assert evolution[0]['bn1']['mean'] == {'IN': 0.5, 'LN': 0.5}


def test_what_another_hook_logs_of_the_layers_is_left_out(tmp_path):
    log(tmp_path, '20260101_000000', (0, 0.5))
    path = tmp_path / '20260101_000000' / 'vis_data' / 'scalars.json'
    more = [{'step': 0, 'ratio/bn1/entropy': 1.0, 'ratio/bn2/entropy': 1.0}]
    more += [{'step': 5, 'ratio/bn1/entropy': 1.0}]
    first = json.loads(path.read_text().splitlines()[1])
    lines = [json.dumps(record) for record in ({**first, **more[0]}, more[1])]
    path.write_text('\n'.join(lines))
    row = {'IN': 0.5, 'LN': 0.5}
    assert read_evolution(tmp_path) == {0: {'bn1': {'mean': row, 'variance': row}}}


def test_without_records_the_checkpoints_tell(tmp_path):
    for iterations in (200, 1000, 400):
        net = nn.ModuleDict({'bn1': SN(4, using_bn=False)})
        net['bn1'].var_weight.data[0] += iterations / 1000
        save(tmp_path / f'iter_{iterations}.pth', net, meta={'iter': iterations})
    found = ratios_in(read_evolution(tmp_path))
    assert list(found) == [200, 400, 1000]
    assert sorted(found.values()) == list(found.values())
    save(tmp_path / 'epoch_1.pth', model(), meta={'iter': 1})
    with pytest.raises(CheckpointError, match='trainings of different models'):
        read_evolution(tmp_path)


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(CheckpointError, match=r'neither .* NormRatioHook logs nor a checkpoint'):
        read_evolution(tmp_path)
    save(tmp_path / 'epoch_1.pth', model())
    with pytest.raises(CheckpointError, match='does not say after how many iterations'):
        read_evolution(tmp_path)


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_rows(tmp_path):
    ratios = read_ratios(save(tmp_path / 'a.pth', model()))
    table = ratio_rows({0: ratios, 7: ratios})
    assert [row['iteration'] for row in table] == [0] * 10 + [7] * 10
    row = next(r for r in table if (r['layer'], r['statistic']) == ('sparse', 'mean'))
    assert (row['IN'], row['LN'], row['BN'], row['choice']) == ('1.000000',) + ('0.000000',) * 2 + (
        'IN',
    )
    row = next(r for r in table if (r['layer'], r['statistic']) == ('a', 'variance'))
    assert (row['IN'], row['LN'], row['BN'], row['choice']) == ('0.500000', '0.500000', '', '')


def is_picture(path):
    image = cv2.imread(str(path))
    return image is not None and image.std() > 1


def test_tool_on_a_checkpoint(tmp_path, capsys):
    path = save(tmp_path / 'epoch_3.pth', model())
    assert main_plot_ratios([str(path)]) == 0
    assert capsys.readouterr().out.split() == [
        str(tmp_path / 'epoch_3_ratios.png'),
        str(tmp_path / 'epoch_3_ratios.csv'),
    ]
    assert is_picture(tmp_path / 'epoch_3_ratios.png')
    table = rows((tmp_path / 'epoch_3_ratios.csv').read_text())
    assert list(table[0]) == ['layer', 'statistic', 'IN', 'LN', 'BN', 'choice']
    assert len(table) == 10


def test_tool_on_a_run(tmp_path):
    log(tmp_path, '20260102_000000', (0, 0.5), (10, 0.4), (20, 0.3))
    out = tmp_path / 'new' / 'folder'
    assert main_plot_ratios([str(tmp_path), '--out', str(out)]) == 0
    assert is_picture(out / 'ratios.png')
    assert is_picture(out / 'ratios_evolution.png')
    assert [row['iteration'] for row in rows((out / 'ratios.csv').read_text())] == [
        *['0'] * 2, *['10'] * 2, *['20'] * 2
    ]  # fmt: skip


def test_tool_on_a_run_with_whitening(tmp_path):
    for iterations in (200, 400):
        save(tmp_path / f'iter_{iterations}.pth', whitening(), meta={'iter': iterations})
    assert main_plot_ratios([str(tmp_path)]) == 0
    assert is_picture(tmp_path / 'ratios_evolution.png')


def test_tool_refuses_to_replace(tmp_path, capsys):
    path = save(tmp_path / 'a.pth', model())
    table = tmp_path / 'a_ratios.csv'
    table.write_text('mine')
    assert main_plot_ratios([str(path)]) == 2
    assert f'{table} exists; name another folder by --out' in capsys.readouterr().err
    assert table.read_text() == 'mine'
    assert not (tmp_path / 'a_ratios.png').exists()
    assert main_plot_ratios([str(path), '--overwrite']) == 0
    assert len(rows(table.read_text())) == 10


def test_tool_on_wrong_files(tmp_path, capsys):
    (tmp_path / 'text.pth').write_text('no checkpoint')
    for source in ('text.pth', 'absent.pth'):
        assert main_plot_ratios([str(tmp_path / source), '--out', str(tmp_path / 'out')]) == 2
        error = capsys.readouterr().err
        assert source in error
        assert 'Traceback' not in error
    assert not (tmp_path / 'out').exists()
