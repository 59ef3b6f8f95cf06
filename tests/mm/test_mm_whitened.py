"""Whitened layers as ``conv_cfg`` of mm models."""

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import load_checkpoint

from normplug.whitened import WhitenedLayer, Whitener, WNNConv, whitened_layers
from tests.mm.norm_layers import image, randomize, resnet

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
