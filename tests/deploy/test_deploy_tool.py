"""tools/deploy.py: native layers, folded, the same outputs; or nothing is written."""

import re

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

import normplug.deploy.convert
from normplug.deploy.network import largest_difference, random_batch, run
from normplug.norms import SSN, SW, IterNorm, SyncIterNorm
from normplug.whitened import WhitenedLayer
from tests.cases import Case, random_input
from tests.cases import built as built_layer
from tests.deploy.conftest import models
from tests.mm.norm_layers import norm_layers

SHAPE = ('--shape', 2, 3, 64, 96)
CLIPS = ('--shape', 2, 3, 8, 32, 48)


def built(folder, scope):
    """The model as a user of the written files gets it."""
    cfg = Config.fromfile(folder / 'config.py')
    with DefaultScope.overwrite_default_scope(scope):
        model = MODELS.build(cfg.model)
    checkpoint = torch.load(folder / 'model.pth', weights_only=True)
    model.load_state_dict(checkpoint['state_dict'], strict=True)
    assert checkpoint['meta'] == {'dataset_meta': {'classes': ('one', 'two')}}
    return cfg, model.eval()


def outputs(cfg, model):
    # No shape that the tool has checked on.
    shape = (2, 3, 12, 48, 80) if cfg.default_scope == 'mmaction' else (2, 3, 96, 160)
    batch = random_batch(cfg, shape, seed=9)
    return run(cfg, model, batch)['outputs']


@pytest.mark.parametrize('norm', ['SSN', 'PortableSyncBN', 'KN', 'PN', 'BN', 'IterNorm'])
@pytest.mark.parametrize('scope', ['mmdet', 'mmseg', 'mmpretrain', 'mmaction'])
def test_the_outputs_are_unchanged(scope, norm, trained, tool, capsys):
    network = trained(scope, norm)
    out = network.folder / 'deployed'
    shape = CLIPS if scope == 'mmaction' else SHAPE
    assert tool('deploy')(network.config, network.checkpoint, out, *shape) == 0
    printed = capsys.readouterr().out
    assert 'outputs unchanged' in printed
    assert 'no test images' in printed
    cfg, model = built(out, scope)
    assert type(model) is type(network.model)
    assert largest_difference(outputs(cfg, model), outputs(cfg, network.model)) < 1e-4
    left = norm_layers(model)
    if norm == 'SSN':
        axes = 3 if scope == 'mmaction' else 2
        kinds = {'SSN', f'InstanceNorm{axes}d', 'GroupNorm'}
        assert kinds <= set(left.values())
        undecided = [n for n, m in network.model.named_modules() if isinstance(m, SSN)]
        assert f'{len(undecided) // 6} stay: SSN, undecided' in printed
        assert 'mixed (mean by in, variance by bn)' in printed
    else:
        assert not [name for name in left if 'bbox_head' not in name]
        assert 'folded into a convolution' in printed


@pytest.mark.parametrize('kind', ['WNNConv', 'EigenConv', 'PostGWNNConv'])
def test_whitened_layers_become_plain_ones(kind, trained, tool, capsys):
    changes = {
        part: dict(cfg, conv_cfg=dict(type=kind))
        for part, cfg in models('BN')['mmseg'].items()
        if part in ('backbone', 'decode_head')
    }
    for part in ('backbone', 'decode_head'):
        changes[part]['conv_cfg'] = dict(type=kind)
    network = trained('mmseg', 'BN', **changes)
    out = network.folder / 'deployed'
    assert tool('deploy')(network.config, network.checkpoint, out, *SHAPE) == 0
    assert 'outputs unchanged' in capsys.readouterr().out
    cfg, model = built(out, 'mmseg')
    assert not [m for m in model.modules() if isinstance(m, WhitenedLayer)]
    assert any(isinstance(m, WhitenedLayer) for m in network.model.modules())
    assert largest_difference(outputs(cfg, model), outputs(cfg, network.model)) < 1e-5
    assert not norm_layers(model)


def test_a_shared_convolution_is_not_folded(trained, tool, refused, capsys):
    network = trained('mmdet', 'BN')
    argv = (network.config, network.checkpoint, network.folder / 'deployed', *SHAPE)
    refused(
        network,
        tool('deploy'),
        (*argv, '--fold', 'bbox_head.*'),
        '--fold bbox_head.*: bbox_head.cls_convs.0.0.bn cannot be folded',
        "the convolution's output is used by BatchNorm2d too",
    )
    assert tool('deploy')(*argv, '--fold', 'backbone.*') == 0
    printed = capsys.readouterr().out
    assert '10 BatchNorm2d folded into a convolution' in printed
    assert '4 stay: BatchNorm2d, not folded' in printed


def test_a_config_with_placed_norms(trained, tool, capsys):
    """The deployed config stands on the one before, whatever its type."""
    network = trained(
        'mmpretrain',
        'BN',
        type='NormPlacement',
        model_type='ImageClassifier',
        norms=[dict(where='backbone.layer[12].*', norm_cfg=dict(type='SN'))],
    )
    out = network.folder / 'deployed'
    assert tool('deploy')(network.config, network.checkpoint, out, *SHAPE) == 0
    assert '9 SN as before' in capsys.readouterr().out
    cfg, model = built(out, 'mmpretrain')
    assert largest_difference(outputs(cfg, model), outputs(cfg, network.model)) < 1e-4


def test_a_network_that_comes_out_different_is_refused(trained, tool, refused, monkeypatch):
    network = trained('mmpretrain', 'BN')
    fold = normplug.deploy.convert._fold

    def slightly_wrong(conv, norm):
        norm.eps *= 100
        return fold(conv, norm)

    monkeypatch.setattr('normplug.deploy.convert._fold', slightly_wrong)
    argv = (network.config, network.checkpoint, network.folder / 'deployed', *SHAPE)
    refused(network, tool('deploy'), argv, 'outputs of the deployed network differ by')


def test_clips(trained, tool, refused):
    network = trained('mmaction', 'BN')
    argv = (network.config, network.checkpoint, network.folder / 'deployed')
    refused(network, tool('deploy'), (*argv, *SHAPE), '--shape: positive numbers N C T H W')
    argv = (*argv, '--cfg-options', 'model.type=Recognizer2D')
    refused(network, tool('deploy'), argv, "'Recognizer2D'", 'this tool knows Recognizer3D')


def test_wrong_files(trained, tool, refused, tmp_path):
    network = trained('mmpretrain', 'BN')
    main, out = tool('deploy'), tmp_path / 'deployed'
    config, checkpoint = network.config, network.checkpoint
    refused(network, main, (config, tmp_path / 'no.pth', out), 'no.pth does not exist')
    refused(network, main, (tmp_path / 'no.py', checkpoint, out), 'no.py does not exist')
    refused(network, main, (config, checkpoint, tmp_path), f'OUT_DIR: {tmp_path} exists')
    below = config / 'x'
    refused(network, main, (config, checkpoint, below, *SHAPE), 'OUT_DIR:', 'cannot be written')
    argv = (config, checkpoint, out, '--shape', 0, 3, 8, 8)
    refused(network, main, argv, '--shape: positive numbers N C H W')
    argv = (config, checkpoint, out, *SHAPE, '--fold', 'neck.*')
    refused(network, main, argv, '--fold neck.*: the model has no such norm layer')
    state = torch.load(checkpoint)['state_dict']
    del state['backbone.bn1.running_mean']
    torch.save(dict(state_dict=state), tmp_path / 'other.pth')
    argv = (config, tmp_path / 'other.pth', out)
    refused(network, main, argv, 'is of another model than the config')


def test_a_checkpoint_with_nan(trained, tool, refused):
    network = trained('mmpretrain', 'BN')
    checkpoint = torch.load(network.checkpoint)
    checkpoint['state_dict']['backbone.bn1.running_var'][1] = float('nan')
    checkpoint['state_dict']['backbone.conv1.weight'][0] = float('nan')
    torch.save(checkpoint, network.checkpoint)
    told = 'trained.pth has NaN in 2 tensors, backbone.conv1.weight first'
    argv = (network.config, network.checkpoint, network.folder / 'deployed', *SHAPE)
    refused(network, tool('deploy'), argv, told)


def test_an_input_that_the_model_does_not_take(trained, tool, refused):
    network = trained('mmseg', 'BN')
    argv = (
        network.config,
        network.checkpoint,
        network.folder / 'deployed',
        '--shape',
        1,
        4,
        64,
        64,
    )
    refused(network, tool('deploy'), argv, 'fails on an input of (1, 4, 64, 64)', '--shape N C H W')


def test_a_test_image_that_cannot_be_read(trained, tool, refused):
    network = trained('mmpretrain', 'BN')
    image = network.folder / 'val' / 'one' / 'a.png'
    image.parent.mkdir(parents=True)
    image.write_bytes(b'no image')
    cfg = Config.fromfile(network.config)
    pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
    cfg.test_dataloader = dict(
        dataset=dict(type='CustomDataset', data_prefix=str(image.parents[1]), pipeline=pipeline),
        sampler=dict(type='DefaultSampler', shuffle=False),
        batch_size=1,
    )
    cfg.dump(network.config)
    argv = (network.config, network.checkpoint, network.folder / 'deployed', *SHAPE)
    refused(network, tool('deploy'), argv, str(image))


def test_a_deployed_model_is_not_deployed_again(trained, tool, refused):
    network = trained('mmpretrain', 'BN')
    out = network.folder / 'deployed'
    assert tool('deploy')(network.config, network.checkpoint, out, *SHAPE) == 0
    argv = (out / 'config.py', out / 'model.pth', network.folder / 'twice')
    refused(network, tool('deploy'), argv, 'is that of a deployed model already')


@pytest.mark.parametrize(
    ('deployed', 'message'),
    [
        (None, "type='DeployedModel' needs deployed=dict"),
        (dict(type='ImageClassifier', norms=[]), "type='DeployedModel' needs deployed=dict"),
        (
            dict(type='ImageClassifier', norms=[], folded=[dict(conv='backbone.no', norm='x')]),
            "deployed.folded.0: the model has no layer 'backbone.no'",
        ),
    ],
)
def test_a_broken_description(deployed, message, trained):
    network = trained('mmpretrain', 'BN')
    model = Config.fromfile(network.config).model
    model.update(type='DeployedModel', deployed=deployed)
    raises = pytest.raises(ValueError, match=re.escape(message))
    with DefaultScope.overwrite_default_scope('mmpretrain'), raises:
        MODELS.build(model)


def test_folding_keeps_a_bias_and_groups():
    conv = nn.Conv2d(6, 6, 3, groups=2, padding=1).eval()
    norm = nn.BatchNorm2d(6, eps=1e-3).eval()
    for tensor in norm.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 2)
    x = torch.randn(2, 6, 5, 7)
    want = norm(conv(x))
    folded = normplug.deploy.convert._fold(conv, norm)
    torch.testing.assert_close(folded(x), want, rtol=1e-5, atol=1e-5)


def of_batch_alone(channels):
    layer = SW(channels, num_pergroup=3, sw_type=5)
    for logits in layer.ratio_params():
        logits.data[[1, 3, 4]] = -torch.inf
    return layer


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    'options',
    [
        dict(kernel_size=3, stride=2, padding=1),
        dict(kernel_size=3, groups=2, bias=False, padding=2, padding_mode='reflect'),
        dict(kernel_size=(1, 3), dilation=2, groups=2),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    'build',
    [
        lambda c: IterNorm(c, num_groups=4),
        lambda c: SyncIterNorm(c, num_channels=3, frozen=True),
        of_batch_alone,
    ],
    ids=['iternorm', 'frozen', 'sw_of_batch'],
)
def test_folding_a_whitening(build, options, dtype):
    conv = nn.Conv2d(6, 12, **options).to(dtype).eval()
    norm = built_layer(Case('', build), 12, dtype).eval()
    if isinstance(norm, SW):
        norm.load_state_dict(dict(norm.state_dict(), **of_batch_alone(12).state_dict()))
    x = random_input((2, 6, 9, 8), dtype)
    with torch.no_grad():
        want = norm.double()(conv.double()(x.double()))  # as exact as the weights
        folded = normplug.deploy.convert._fold(conv.to(dtype), norm)
        assert folded.weight.dtype == folded.bias.dtype == dtype
        got = folded.double()(x.double())
    rounding = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(got, want, rtol=0, atol=rounding * want.abs().max().item())


def test_a_whitening_that_depends_on_its_input_is_no_map():
    with pytest.raises(ValueError, match='evaluation depends on the statistics of its input'):
        SW(4).eval().evaluation()
