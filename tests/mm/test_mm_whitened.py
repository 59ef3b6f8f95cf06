"""Whitened layers as ``conv_cfg`` of mm models."""

import functools

import mmengine.runner
import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import load_checkpoint

from normplug import whitened
from normplug.checkpoint_file import CheckpointError
from normplug.whitened import WhitenedLayer, Whitener, WNNConv, WNNLinear, whitened_layers
from tests.deploy.conftest import whiten
from tests.mm.norm_layers import image, norm_layers, randomize, resnet

cnn = pytest.importorskip('mmcv.cnn')
pytest.importorskip('mmdet')

KINDS = ('WNNConv', 'PreGWNNConv', 'PostGWNNConv', 'EigenConv')


@pytest.mark.parametrize('scope', ['mmengine', 'mmdet', 'mmseg', 'mmpretrain'])
@pytest.mark.parametrize('kind', KINDS)
def test_the_bare_type_name_builds_in_every_scope(kind, scope):
    with DefaultScope.overwrite_default_scope(scope):
        layer = cnn.ConvModule(4, 6, 3, conv_cfg=dict(type=kind, eps=0.1)).conv
    assert isinstance(layer, WhitenedLayer)
    assert layer.eps == 0.1


def test_a_linear_layer():
    layer = MODELS.build(dict(type='WNNLinear', in_features=3, out_features=2))
    assert layer(torch.ones(5, 3)).shape == (5, 2)


def test_initialized_and_loaded_as_the_plain_layer(tmp_path):
    """By ``init_cfg`` of Kaiming for Conv2d, and from the checkpoint of a plain network."""
    torch.manual_seed(0)
    plain = resnet(dict(type='BN'))
    plain.init_weights()
    torch.manual_seed(0)
    whitened = resnet(dict(type='BN'), conv_cfg=dict(type='WNNConv'))
    whitened.init_weights()
    torch.testing.assert_close(whitened.layer1[0].conv1.weight, plain.layer1[0].conv1.weight)
    torch.save(randomize(plain, 1).state_dict(), tmp_path / 'plain.pth')
    load_checkpoint(whitened, str(tmp_path / 'plain.pth'), strict=True)
    for model in (whitened, plain):
        model.eval()
    torch.testing.assert_close(whitened(image()), plain(image()))


@pytest.mark.parametrize('kind', KINDS)
def test_a_backbone_keeps_its_function(kind):
    rank = dict(rank=1.0) if kind == 'PreGWNNConv' else {}
    model = randomize(resnet(dict(type='BN'), conv_cfg=dict(type=kind, eps=1e-2, **rank)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
    whitener = Whitener(whitened_layers(model), [optimizer], interval=3, batches=3)
    for iteration in range(3):
        model.train()
        whitener.before_step(iteration)
        outputs = model(image(batch=8, size=128, seed=iteration))
        sum((y * torch.randn_like(y)).mean() for y in outputs).backward()
        optimizer.step()
        model.eval()
        x = image()
        before = [y.detach() for y in model(x)]
        done = whitener.after_step(iteration)
    assert len(done) == sum(isinstance(m, WhitenedLayer) for m in model.modules()) > 10
    after = [y.detach() for y in model(x)]
    for got, want in zip(after, before, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3 * float(want.abs().max()))


def test_frozen_stages_keep_theirs():
    model = resnet(dict(type='BN'), conv_cfg=dict(type='WNNConv'), frozen_stages=1)
    model.train()
    names = whitened_layers(model)
    assert names
    assert not any(name.startswith(('conv1', 'layer1')) for name in names)


def test_groups_are_refused_by_the_key():
    with pytest.raises(ValueError, match=r"conv_cfg=dict\(type='WNNConv'\) .* groups=8"):
        cnn.ConvModule(8, 8, 3, groups=8, conv_cfg=dict(type='WNNConv'))
    assert issubclass(WNNConv, torch.nn.Conv2d)


def written(kind, **options):
    """A backbone whose whitened layers have coordinates, and offsets, of their own."""
    model = randomize(resnet(dict(type='BN'), conv_cfg=dict(type=kind), **options))
    whiten(model)
    with torch.no_grad():
        for layer in whitened_layers(model).values():
            layer.offset.normal_()
        model(image(4))
    return model


def features(model):
    model.eval()
    with torch.no_grad():
        return model(image())[-1]


@pytest.mark.parametrize('conv_cfg', [None, dict(type='EigenConv')], ids=['plain', 'EigenConv'])
@pytest.mark.parametrize('ddp', [False, True], ids=['', 'wrapped'])
def test_whitened_weights_for_other_layers_are_refused(conv_cfg, ddp, tmp_path):
    """mm does not load strictly, and would go on with another network."""
    torch.save({'state_dict': written('WNNConv').state_dict()}, tmp_path / 'wnn.pth')
    other = resnet(dict(type='BN'), conv_cfg=conv_cfg)
    before = {key: value.clone() for key, value in other.state_dict().items()}
    model = torch.nn.DataParallel(other) if ddp else other
    told = r'for 20 layers that are \w+ in the model \(conv1, .*build the model with the conv_cfg'
    with pytest.raises(CheckpointError, match=told):
        load_checkpoint(model, str(tmp_path / 'wnn.pth'))
    with pytest.raises(CheckpointError, match=told):
        mmengine.runner.load_state_dict(model, written('WNNConv').state_dict())
    other.init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'wnn.pth'))
    with pytest.raises(CheckpointError, match=told):
        other.init_weights()
    after = other.state_dict()
    assert after.keys() == before.keys()
    if conv_cfg is None:
        assert torch.equal(after['conv1.weight'], before['conv1.weight'])


def test_a_new_head_in_place_of_a_whitened_one_is_no_reason():
    """mm leaves a weight of another shape out."""

    def net(head):
        return torch.nn.ModuleDict({'body': WNNConv(3, 4, 3), 'head': head})

    theirs, model = net(WNNLinear(4, 7)), net(torch.nn.Linear(4, 2))
    mmengine.runner.load_state_dict(model, theirs.state_dict())
    assert torch.equal(model['body'].weight, theirs['body'].weight)
    with pytest.raises(CheckpointError, match='head'):
        mmengine.runner.load_state_dict(net(torch.nn.Linear(4, 7)), theirs.state_dict())


def test_loading_is_checked_behind_others_changes_of_it(monkeypatch):
    loads = mmengine.runner.checkpoint.load_state_dict.__wrapped__

    @functools.wraps(loads)
    def others(*args, **kwargs):
        loads(*args, **kwargs)

    others.__dict__.pop('checks_coordinates', None)
    monkeypatch.setattr(mmengine.runner.checkpoint, 'load_state_dict', others)
    whitened.install()
    with pytest.raises(CheckpointError, match='whitened weights'):
        mmengine.runner.checkpoint.load_state_dict(
            torch.nn.Conv2d(3, 4, 3), WNNConv(3, 4, 3).state_dict()
        )


def test_whitened_weights_load_where_they_belong(tmp_path):
    model = written('WNNConv')
    state = {**model.state_dict(), 'neck.seen_in.cov': torch.ones(1), 'neck.weight': torch.ones(1)}
    torch.save(state, tmp_path / 'wnn.pth')
    other = resnet(dict(type='BN'), conv_cfg=dict(type='WNNConv'))
    load_checkpoint(other, str(tmp_path / 'wnn.pth'))
    assert torch.equal(features(other), features(model))


@pytest.mark.parametrize('kind', KINDS)
def test_fuse_conv_bn_fuses_what_the_layers_compute(kind):
    model = written(kind)
    before = features(model)
    fused = cnn.fuse_conv_bn(model)
    assert not norm_layers(fused)
    torch.testing.assert_close(features(fused), before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('kind', ['WNNConv', 'PostGWNNConv'])
def test_efficient_conv_bn_eval_runs_the_layers_as_they_are(kind):
    torch.manual_seed(0)
    cfg = dict(conv_cfg=dict(type=kind), norm_cfg=dict(type='BN'))
    module = cnn.ConvModule(3, 4, 3, efficient_conv_bn_eval=True, **cfg)
    plain = cnn.ConvModule(3, 4, 3, **cfg)
    whiten(module)
    module(image())
    plain.load_state_dict(module.state_dict())
    assert module.efficient_conv_bn_eval_forward is not None
    torch.testing.assert_close(module.eval()(image()), plain.eval()(image()))
