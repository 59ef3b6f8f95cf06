"""tools/export_onnx.py: onnxruntime gives what torch gives; or nothing is written."""

import importlib.util

import pytest
import torch
from mmengine.config import Config

from normplug.deploy.onnx_graph import ExportedNetwork, export_onnx
from normplug.errors import UserError

for package in ('onnx', 'onnxscript'):
    pytest.importorskip(package)
onnxruntime = pytest.importorskip('onnxruntime')
import onnx  # noqa: E402

SHAPE = (1, 3, 64, 96)


def ends(network):
    shape = (1, 3, 8, 32, 48) if network.scope == 'mmaction' else SHAPE
    return network.config, network.checkpoint, network.folder / 'net.onnx', '--shape', *shape


@pytest.mark.slow
@pytest.mark.parametrize(
    ('scope', 'norm'),
    [
        *(('mmdet', 'GW'), ('mmseg', 'SN'), ('mmpretrain', 'IBN'), ('mmaction', 'SN')),
    ],
)
def test_onnxruntime_gives_what_torch_gives(scope, norm, trained, tool, capsys):
    network = trained(scope, norm)
    assert tool('export_onnx')(*ends(network)) == 0
    assert 'onnxruntime differs from torch by' in capsys.readouterr().out
    path = network.folder / 'net.onnx'
    assert sorted(p.name for p in network.folder.iterdir()) == [
        path.name,
        'trained.pth',
        'trained.py',
    ]
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    # No shape that the tool has checked on.
    image = torch.randn((3, 3, 12, 48, 80) if scope == 'mmaction' else (3, 3, 128, 160))
    got = session.run(None, {'image': image.numpy()})
    with torch.no_grad():
        want = ExportedNetwork(network.model, scope)(image)
    want = want if isinstance(want, tuple) else (want,)
    assert len(got) == len(want) == (2 if scope == 'mmdet' else 1)
    for a, b in zip(got, want, strict=True):
        assert (torch.from_numpy(a) - b).abs().max() < 1e-4 * b.abs().max()
    graph = onnx.load(path).graph
    assert {node.domain for node in graph.node} == {''}
    assert not {'TopK', 'Softmax'} & {node.op_type for node in graph.node}  # ratios are constants
    assert onnx.TensorProto.DOUBLE not in {tensor.data_type for tensor in graph.initializer}


def test_training_mode_is_refused(trained):
    network = trained('mmpretrain', 'BN')
    cfg, out = Config.fromfile(network.config), network.folder / 'net.onnx'
    network.model.train()
    with pytest.raises(UserError, match=r'training mode: call model\.eval\(\)'):
        export_onnx(cfg, network.model, str(out), SHAPE, fixed=True)
    assert not out.exists()


def test_wrong_files(trained, tool, refused, tmp_path, monkeypatch):
    network = trained('mmpretrain', 'SN')
    main = tool('export_onnx')
    config, checkpoint, out, *shape = ends(network)
    refused(network, main, (config, tmp_path / 'no.pth', out), 'no.pth does not exist')
    refused(network, main, (config, checkpoint, checkpoint, *shape), 'OUT.onnx:', 'exists')
    argv = (config, checkpoint, out, '--cfg-options', 'default_scope=mmengine')
    refused(network, main, argv, "default_scope = 'mmengine'", 'mmdet, mmseg, mmpretrain')
    state = torch.load(checkpoint)['state_dict']
    state['backbone.conv9.weight'] = torch.ones(1)
    torch.save(dict(state_dict=state), tmp_path / 'other.pth')
    refused(network, main, (config, tmp_path / 'other.pth', out), 'is of another model')
    find = importlib.util.find_spec
    monkeypatch.setattr(
        'normplug.deploy.onnx_graph.find_spec',
        lambda name: None if name == 'onnxruntime' else find(name),
    )
    refused(network, main, ends(network), 'pip install onnxruntime', 'normplug[export]')


@pytest.mark.slow
def test_adaptive_pooling_needs_a_fixed_shape(trained, tool, refused):
    head = dict(type='PSPHead', pool_scales=(1, 2), in_channels=16, in_index=1, channels=8)
    head = dict(head, num_classes=2, norm_cfg=dict(type='SN'))
    network = trained('mmseg', 'SN', decode_head=head)
    hint = 'At (1, 3, 64, 96) they agree: with --fixed-shape the model can be exported'
    refused(network, tool('export_onnx'), ends(network), 'outputs of onnxruntime differ by', hint)
    assert tool('export_onnx')(*ends(network), '--fixed-shape') == 0


def test_a_graph_that_differs_is_refused(trained, tool, refused, monkeypatch):
    network = trained('mmpretrain', 'SN')
    monkeypatch.setattr('normplug.deploy.onnx_graph.TOLERANCE', 0)
    argv = (*ends(network), '--fixed-shape')
    refused(network, tool('export_onnx'), argv, 'the outputs of onnxruntime differ by')
