"""A wrong file or option: exit code 2, a message that names it, and nothing written."""

import pytest
import torch

from tests.checkpoints.networks import convert_tool, released_state
from tests.mm.norm_layers import resnet

CONFIG = """
custom_imports = dict(imports=['normplug'])
default_scope = 'mmpretrain'
model = dict(
    type='ImageClassifier',
    backbone=dict(type='ResNet', depth={depth}, stem_channels=4, base_channels=4,
                  norm_cfg=dict(type='{norm}'), {more}),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes={classes}, in_channels=32),
)
"""


class _Code:
    def __reduce__(self):
        return print, ('executed',)


def _sn(**changes):
    return {**released_state('sn', 18), **changes}


def _without(*names):
    return {name: v for name, v in _sn().items() if not name.startswith(names)}


def _batch_norm():
    state = released_state('ibn_a', 18)
    return {n.replace('.BN.', '.'): v for n, v in state.items() if '.IN.' not in n}


def _gated():
    state = _batch_norm()
    means = {n: v for n, v in state.items() if n.endswith('running_mean')}
    return state | {n.replace('running_mean', 'gate_logit'): v for n, v in means.items()}


def _released(kind, missing=None, **changes):
    state = {**released_state(kind, 18), **changes}
    return {name: value for name, value in state.items() if name != missing}


def _nan():
    state = _sn()
    state['layer2.0.sn1.running_var'][0, 1] = float('nan')
    state['fc.bias'][0] = float('inf')
    return state


FILES = {
    'nan': (_nan, 'NaN or infinite values in 2 of', 'layer2.0.sn1.running_var'),
    'code': (lambda: {'state_dict': _sn(), 'x': _Code()}, 'is refused: it asks for'),
    'no tensors': (lambda: {'state_dict': {}, 'epoch': 3}, 'holds no state dict', 'epoch'),
    'a list': (lambda: [1, 2], 'holds no state dict'),
    'a Detectron layout': (
        lambda: {
            'Conv_Body.conv1.weight': torch.ones(2, 3, 7, 7),
            'Conv_Body.res2.0.sn1.mean_weight': torch.ones(3),
        },
        'is not of a ResNet',
        'Conv_Body.conv1.weight',
        'Detectron',
    ),
    'no norms': (
        lambda: {
            'backbone.conv1.weight': torch.ones(2, 3, 7, 7),
            'backbone.gn.weight': torch.ones(2),
        },
        'has no layer of BN, SN, SSN, IBN, SW or IterNorm',
    ),
    'batch norm alone': (_batch_norm, 'has batch norm alone', '--norm'),
    'what loads as it is': (_gated, 'has BIN alone', 'load_from'),
    'a layer missing': (
        lambda: _without('layer3.1.sn2.'),
        'looks like a ResNet-18, but 1 of its layers are missing: layer3.1.bn2',
    ),
    'a tensor missing': (
        lambda: _without('layer3.1.sn2.var_weight'),
        'layer layer3.1.bn2 is not a whole SN layer: var_weight missing',
    ),
    'a weight missing': (
        lambda: _without('layer3.1.sn2.weight'),
        'layer layer3.1.bn2 is not a whole SN layer: weight missing',
    ),
    'logits of the means missing': (
        lambda: _released('sn', 'layer3.1.sn2.mean_weight'),
        'layer layer3.1.bn2 is not a whole SN layer: mean_weight missing',
    ),
    'logits of an SSN missing': (
        lambda: _released('ssn', 'layer3.1.sn2.mean_weight'),
        'layer layer3.1.bn2 is not a whole SSN layer: mean_weight missing',
    ),
    'a statistic of a batch norm missing': (
        lambda: _released('ibn_a', 'layer3.1.bn2.running_var'),
        'layer layer3.1.bn2 is not a whole BN layer: running_var missing',
    ),
    'a statistic of the other half missing': (
        lambda: _released('ibn_a', 'layer3.1.bn1.BN.running_mean'),
        'layer layer3.1.bn1.BN is not a whole BN layer: running_mean missing',
    ),
    'a radius above 1': (
        lambda: _released('ssn', **{'layer3.1.sn2.radius': torch.tensor([1.5])}),
        "layer layer3.1.bn2 has an SSN's radius of [1.5], which must lie in [0, 1]",
    ),
    'an empty file': (dict, 'holds no state dict; it should have tensors by name'),
    'no names': (lambda: {0: torch.ones(1)}, 'holds no state dict (only 0)'),
    'pre-activation': (
        lambda: _sn(**{'sn_out.weight': torch.ones(1, 4, 1, 1)}),
        'is no plain ResNet-18: it has 1 more tensors (sn_out.weight)',
    ),
    'both names': (
        lambda: _sn(**{'bn1.weight': torch.ones(1, 4, 1, 1)}),
        'sn1.weight and bn1.weight are both bn1.weight',
    ),
}  # fmt: skip


@pytest.fixture
def refuses(tmp_path, capfd):
    """Run the tool; it must refuse with the messages and leave the folder as it was."""

    def check(argv, *messages):
        def files():
            return {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()}

        before = files()
        assert convert_tool(*argv) == 2
        out, error = capfd.readouterr()
        assert error.startswith('tools/convert_checkpoint.py: error: ')
        assert 'Traceback' not in error
        assert 'executed' not in out
        for message in messages:
            assert message in error
        assert files() == before

    return check


@pytest.mark.parametrize('name', FILES)
def test_files(name, tmp_path, refuses):
    build, *messages = FILES[name]
    path = tmp_path / 'wrong.pth'
    torch.save(build(), path)
    refuses([path, tmp_path / 'out.pth'], str(path), *messages)


def test_text_and_absent_and_truncated_files(tmp_path, refuses):
    path, out = tmp_path / 'a.pth', tmp_path / 'out.pth'
    refuses([path, out], f'{path} ')
    path.write_text('<html>404</html>')
    refuses([path, out], f'{path} cannot be loaded: it is a web page')
    path.write_text('hello')
    refuses([path, out], f'{path} cannot be loaded')
    torch.save(_sn(), path)
    path.write_bytes(path.read_bytes()[:1000])
    refuses([path, out], f'{path} cannot be loaded', 'truncated')


@pytest.mark.parametrize(
    ('options', 'kind', 'messages'),
    [
        (['--norm', 'IBN'], 'sn', ['has no layer that could become IBN; its norms: SN']),
        (['--norm', 'SN'], 'ssn', ['is SSN, which cannot become SN']),
        (['--logit-init', 'bn'], 'sn', ['--logit-init bn changes nothing']),
    ],
    ids=['sn to ibn', 'ssn to sn', 'logits that are there'],
)
def test_conversions_that_there_are_not(options, kind, messages, tmp_path, refuses):
    torch.save(released_state(kind, 18), tmp_path / 'a.pth')
    refuses([tmp_path / 'a.pth', tmp_path / 'out.pth', *options], *messages)


@pytest.mark.parametrize(
    ('norm_cfg', 'options', 'message'),
    [
        ({'type': 'IBN'}, {}, 'no place for bn1'),
        ({'type': 'SN', 'using_in': False}, {}, 'released 2-d layers all have IN'),
        ({'type': 'SN'}, {'deep_stem': True}, 'no place for stem.*'),
        ({'type': 'BN'}, {'type': 'IBNResNet', 'ibn_cfg': ('c', None, None, None)}, 'layer1.0.bn1'),
        ({'type': 'BN'}, {'type': 'IBNResNet', 'ibn_cfg': ('d', None, None, None)}, 'IN.IN.weight'),
        ({'type': 'SN'}, {'type': 'IBNResNet', 'ibn_cfg': ('a', 'a', 'a', None)}, 'BN.weight'),
    ],
    ids=['ibn everywhere', 'no in', 'deep stem', 'ibn-c', 'ibn-d', 'ibn-a of sn'],
)
def test_networks_that_were_not_released(norm_cfg, options, message, tmp_path, refuses):
    net = resnet(norm_cfg, norm_eval=False, **options)
    torch.save(net.state_dict(), tmp_path / 'a.pth')
    refuses([tmp_path / 'a.pth', tmp_path / 'out.pth', '--to', 'released'], message)


def test_no_classifier(tmp_path, refuses):
    torch.save(_without('fc.'), tmp_path / 'a.pth')
    argv = [tmp_path / 'a.pth', tmp_path / 'out.pth', '--to', 'classifier']
    refuses(argv, 'has no classifier')


@pytest.mark.parametrize(
    'option', [['--to', 'somewhere'], ['--norm', 'KNN'], ['--logit-init', 'gn']]
)
def test_unknown_targets(option, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        convert_tool(tmp_path / 'a.pth', tmp_path / 'b.pth', *option)
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert option[0] in error
    assert f"invalid choice: '{option[1]}'" in error


def test_existing_output(tmp_path, refuses):
    source, out = tmp_path / 'a.pth', tmp_path / 'b.pth'
    torch.save(_sn(), source)
    out.write_text('mine')
    refuses([source, out], f'{out} exists', '--overwrite')
    refuses([source, tmp_path], 'is a folder')
    refuses([source, source, '--overwrite'], 'is the source')
    assert convert_tool(source, out, '--overwrite') == 0
    assert torch.load(out, weights_only=True)['state_dict']['bn1.weight'].shape == (4,)


@pytest.mark.parametrize(
    ('changes', 'messages'),
    [
        ({'depth': 34}, ['is of a ResNet-18, but model.backbone of', 'is a ResNet-34']),
        ({'norm': 'BN'}, ['40 unknown to the model: backbone.bn1.mean_weight']),
        ({'more': 'deep_stem=True'}, ['missing in the file: backbone.stem.0.conv.weight']),
        ({'classes': 7}, ['head.fc.weight (3, 32) (model: (7, 32))']),
    ],
    ids=['depth', 'bn', 'stem', 'classes'],
)  # fmt: skip
def test_config_of_another_model(changes, messages, tmp_path, refuses):
    pytest.importorskip('mmpretrain')
    torch.save(_sn(), tmp_path / 'a.pth')
    config = tmp_path / 'config.py'
    values = {'depth': 18, 'norm': 'SN', 'classes': 3, 'more': '', **changes}
    config.write_text(CONFIG.format(**values))
    argv = [tmp_path / 'a.pth', tmp_path / 'out.pth', '--config', config]
    refuses(argv, *messages)
