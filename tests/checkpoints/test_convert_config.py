"""``--config``: the model tells the layout and the norms, and must fit."""

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import load_checkpoint

from normplug.checkpoints import convert, read
from normplug.preflight.config import load_config
from tests.checkpoints.networks import assert_same_tensors, convert_tool, released_state
from tests.mm.norm_layers import image, randomize

DETECTOR = """
custom_imports = dict(imports=['normplug'])
default_scope = 'mmdet'
model = dict(
    type='RetinaNet',
    backbone=dict(type='{backbone}', depth=18, stem_channels=4, base_channels=4, norm_eval=False,
                  norm_cfg=dict(type='{norm}'), {more}),
    neck=dict(type='FPN', in_channels=[4, 8, 16, 32], out_channels=4, num_outs=5,
              norm_cfg=dict(type='{neck}')),
    bbox_head=dict(type='RetinaHead', num_classes={classes}, in_channels=4, feat_channels=4,
                   stacked_convs=1),
)
"""

HEADS = """
neck=dict(type='FPN', in_channels=[32, 64, 128, 256], out_channels=4, num_outs=5),
bbox_head=dict(type='RetinaHead', num_classes=2, in_channels=4, feat_channels=4, stacked_convs=1)
"""


@pytest.fixture
def detector(tmp_path):
    pytest.importorskip('mmdet')
    """Write a detector's config and build its model."""

    def build(name, norm, neck='BN', classes=2, backbone='ResNet', more=''):
        path = tmp_path / f'{name}.py'
        values = dict(norm=norm, neck=neck, classes=classes, backbone=backbone, more=more)
        path.write_text(DETECTOR.format(**values))
        with DefaultScope.overwrite_default_scope('mmdet'):
            return path, MODELS.build(load_config(str(path)).model)

    return build


@pytest.mark.parametrize('norm', ['SN', 'SyncSN', 'SSN', 'SyncSSN'])
def test_a_batch_norm_detector_becomes_one_of_ours(norm, detector, tmp_path, capsys):
    _, bn = detector('bn', 'BN')
    config, ours = detector('ours', norm, neck=norm, classes=5)
    source, out = tmp_path / 'bn.pth', tmp_path / 'ours.pth'
    torch.save({'state_dict': bn.state_dict(), 'meta': {'dataset_meta': {'CLASSES': 'ab'}}}, source)
    assert convert_tool(source, out, '--config', config, '--logit-init', 'bn') == 0
    assert f'28 BN → {norm.removeprefix("Sync")}' in capsys.readouterr().out
    checkpoint = load_checkpoint(ours, str(out), map_location='cpu')
    assert checkpoint['meta'] == {'dataset_meta': {'CLASSES': 'ab'}}
    for name in ('backbone.layer2.0.bn1', 'neck.lateral_convs.0.bn'):
        layer, theirs = ours.get_submodule(name), bn.get_submodule(name)
        assert torch.equal(layer.running_var, theirs.running_var)
        assert layer.ratios()[0][2] > 0.99


def test_norms_by_the_places_of_the_config(detector, tmp_path, capsys):
    _, bn = detector('bn', 'BN')
    more = "ibn_cfg=('a', None, None, None)"
    config, ours = detector('ours', 'BN', backbone='IBNResNet', more=more)
    torch.save(bn.backbone.state_dict(), tmp_path / 'bn.pth')
    assert convert_tool(tmp_path / 'bn.pth', tmp_path / 'ours.pth', '--config', config) == 0
    assert 'norm layers: 18 BN, 2 BN → IBN' in capsys.readouterr().out
    load_checkpoint(ours.backbone, str(tmp_path / 'ours.pth'), strict=True)
    theirs = bn.backbone.layer1[1].bn1
    assert torch.equal(ours.backbone.layer1[1].bn1.weight, theirs.weight)


@pytest.mark.parametrize('norm', ['PN', 'SyncPN'])
def test_batch_norm_and_pn_need_no_conversion(norm, detector, tmp_path, capsys):
    """The file of each is the other's, and the tool says so."""
    _, bn = detector('bn', 'BN')
    config, pn = detector('pn', norm, neck=norm)
    randomize(bn)
    bn.backbone(image())
    torch.save(bn.state_dict(), tmp_path / 'bn.pth')
    assert convert_tool(tmp_path / 'bn.pth', tmp_path / 'pn.pth', '--config', config) == 2
    told = capsys.readouterr().err
    assert 'batch norm alone' in told
    assert 'with batch norm, PN, GhostBN or PortableSyncBN, which have the same tensors' in told
    load_checkpoint(pn, str(tmp_path / 'bn.pth'), strict=True)
    assert_same_tensors(dict(pn.state_dict()), dict(bn.state_dict()))


def test_pn_of_drawn_variances_in_a_released_network(detector, tmp_path, capsys):
    """Nobody released a PN: its kurtosis is a Gaussian's then, and has no place on the way back."""
    ibn_b = "ibn_cfg=('b', 'b', None, None)"
    cfg = "PN', noise='var', samples=8, eps=1e-5, population='running"
    config, ours = detector('ours', cfg, backbone='IBNResNet', more=ibn_b)
    files = [tmp_path / f'{name}.pth' for name in 'abc']
    state = released_state('ibn_b', 18)
    torch.save(state, files[0])
    assert convert_tool(files[0], files[1], '--config', config) == 0
    with pytest.warns(UserWarning, match='no kurtosis, which stays 0'):
        load_checkpoint(ours.backbone, str(files[1]))
    want = convert(read(str(files[0]))).state
    got = ours.backbone.state_dict()
    kurtoses = [name for name in got if name.endswith('.kurtosis')]
    assert len(kurtoses) == 19
    assert not any(got.pop(name).any() for name in kurtoses)
    assert_same_tensors(dict(got), want)
    torch.save(ours.backbone.state_dict(), files[1])
    assert convert_tool(files[1], files[2], '--to', 'released') == 0
    assert 'not used: 19: layer1.0.bn1.kurtosis' in capsys.readouterr().out
    state = {name: value for name, value in state.items() if not name.startswith('fc.')}
    assert_same_tensors(read(str(files[2])).state, state)


def test_a_released_backbone_for_a_detector(detector, tmp_path):
    config, ours = detector('ours', 'SN')
    torch.save(released_state('sn', 18), tmp_path / 'a.pth')
    assert convert_tool(tmp_path / 'a.pth', tmp_path / 'b.pth', '--config', config) == 0
    load_checkpoint(ours.backbone, str(tmp_path / 'b.pth'), strict=True)


def test_a_detector_of_another_depth(detector, tmp_path, capsys):
    _, bn = detector('bn', 'BN')
    config, _ = detector('ours', 'SN')
    config.write_text(config.read_text().replace('depth=18', 'depth=34'))
    torch.save(bn.state_dict(), tmp_path / 'bn.pth')
    assert convert_tool(tmp_path / 'bn.pth', tmp_path / 'out.pth', '--config', config) == 2
    assert 'is of a ResNet-18, but model.backbone of' in capsys.readouterr().err
    assert not (tmp_path / 'out.pth').exists()


RESNEXT = """
custom_imports = dict(imports=['normplug'])
default_scope = 'mmdet'
model = dict(backbone=dict(type='{type}', depth=50, base_channels=8, stem_channels=8,
                           norm_cfg=dict(type='SN'), {more}))
"""


@pytest.fixture
def resnext():
    """The weights of a ResNeXt-50 with batch norms, of 4 groups."""
    pytest.importorskip('mmdet')
    backbone = dict(type='ResNeXt', depth=50, base_channels=8, stem_channels=8, groups=4)
    with DefaultScope.overwrite_default_scope('mmdet'):
        return MODELS.build({**backbone, 'base_width': 64}).state_dict()


@pytest.mark.parametrize('prefix', ['', 'backbone.'])
def test_a_resnext_is_called_one(resnext, prefix, tmp_path, capsys):
    source, out = tmp_path / 'bn.pth', tmp_path / 'sn.pth'
    torch.save({prefix + name: value for name, value in resnext.items()}, source)
    assert convert_tool(source, out, '--norm', 'SN') == 0
    assert 'ResNeXt-50 of 4 groups; norm layers: 53 BN → SN' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('kind', 'more', 'message'),
    [
        ('ResNeXt', 'groups=4, base_width=64', ''),
        ('ResNet', '', 'is of a ResNeXt-50 of 4 groups, but {} is a ResNet-50: correct the depth '),
        ('ResNeXt', 'groups=2, base_width=64', 'but {} is a ResNeXt-50 of 2 groups: correct'),
    ],
)
def test_a_resnext_for_the_model_of_a_config(resnext, kind, more, message, tmp_path, capsys):
    source, out, config = (tmp_path / name for name in ('bn.pth', 'sn.pth', 'config.py'))
    torch.save(resnext, source)
    detector = f"model.update(type='RetinaNet', {HEADS})\n"
    config.write_text(RESNEXT.format(type=kind, more=more) + detector)
    code = convert_tool(source, out, '--config', config)
    assert code == (2 if message else 0)
    assert message.format(f'model.backbone of {config}') in capsys.readouterr().err
    assert out.exists() == (not message)
