"""Released weights through the tool into mm's ResNets give the released features."""

import numpy as np
import pytest
import torch
from mmengine.runner import load_checkpoint

from tests.checkpoints.networks import DATA, convert_tool, golden_state, released_shapes, resnet

_RELEASED = {'released_statistics': True}
NETWORKS = {
    'resnet50_sn': dict(norm_cfg=dict(type='SN', **_RELEASED)),
    'resnet50_sn_8x1': dict(norm_cfg=dict(type='SN', using_bn=False, **_RELEASED)),
    'resnet50_ssn': dict(norm_cfg=dict(type='SSN', **_RELEASED)),
    'resnet50_ibn_a': dict(type='IBNResNet', ibn_cfg=('a', 'a', 'a', None)),
    'resnet50_ibn_b': dict(type='IBNResNet', ibn_cfg=('b', 'b', None, None)),
}


@pytest.mark.parametrize('name', NETWORKS)
def test_generator(name):
    """The state dicts of other depths in these tests have the released structure."""
    golden = {key: tuple(value.shape) for key, value in golden_state(name).items()}
    assert released_shapes(name.removeprefix('resnet50_'), 50, 64, 1000) == golden


@pytest.mark.parametrize(
    ('name', 'scope'), [*((name, 'mmdet') for name in NETWORKS), ('resnet50_sn', 'mmseg')]
)
def test_features(name, scope, tmp_path, capsys):
    released, ours = tmp_path / f'{name}.pth', tmp_path / 'ours.pth'
    # As the released trainer saves; 'model' is the network's name there.
    state = {f'module.{key}': value for key, value in golden_state(name).items()}
    torch.save({'epoch': 100, 'model': 'resnet50', 'state_dict': state, 'best': 76.9}, released)
    assert convert_tool(released, ours) == 0
    report = capsys.readouterr().out
    assert 'ResNet-50' in report
    assert 'not used: 2: module.fc.weight, module.fc.bias' not in report  # names without module.
    assert 'not used: 2: fc.weight, fc.bias' in report

    options = {**NETWORKS[name], 'style': 'pytorch'}
    if scope == 'mmseg':  # its default is dilated
        options |= {'strides': (1, 2, 2, 2), 'dilations': (1, 1, 1, 1)}
    model = resnet(scope, **options)
    if 'ssn' in name:
        assert 'maxpool = torch.nn.MaxPool2d(3, stride=2, ceil_mode=True)' in report
        model.maxpool = torch.nn.MaxPool2d(3, stride=2, ceil_mode=True)
    load_checkpoint(model, str(ours), map_location='cpu', strict=True)
    with np.load(DATA / f'net_{name}.npz') as arrays:
        golden = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    for mode in ('eval', 'train'):
        model.train(mode == 'train')
        with torch.no_grad():
            features = model(golden['x'])
        for stage, feature in enumerate(features, 1):
            want = golden[f'{mode}.layer{stage}']
            got = feature[:, :: feature.shape[1] // want.shape[1]]  # some keep every 8th channel
            # 53 layers, each within a few float32 roundings of the released order of operations.
            error = (got - want).abs().max() / want.abs().max()
            assert error <= 2e-4, f'{mode} layer{stage}: {error}'
