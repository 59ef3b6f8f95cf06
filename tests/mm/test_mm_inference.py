"""The inference interfaces of the mm packages build, from the config alone, the trained network."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from tests.mm.norm_layers import all_scopes, norm_layers, randomize

CONFIGS = {
    'mmdet': 'configs/faster_rcnn/faster-rcnn_r18-w32_fpn_bn_digits.py',
    'mmseg': 'configs/fcn/fcn_r18-d8-w32_syncbn_digits-ade.py',
    'mmpretrain': 'configs/pretrain/resnet18-w32_bn_digits.py',
}
IMAGE = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)


def place(model):
    at = 'backbone.layer[1-3].*.bn1'
    norms = [{'where': at, 'norm_cfg': {'type': 'IBN'}}]
    norms += [{'where': 'backbone.layer4.*', 'norm_cfg': {'type': 'SN'}}]
    model.update(type='NormPlacement', model_type=model.type, norms=norms)


def place_in_the_backbone(model):
    norms = [{'where': 'layer[1-3].*.bn1', 'norm_cfg': {'type': 'IBN'}}]
    model.backbone.update(type='NormPlacement', model_type=model.backbone.type, norms=norms)


def ibn_net(model):
    model.backbone.update(type='IBNResNet', ibn_cfg=('b', 'c', 'a', 'd'))


CHANGES = {
    place: {'IBN': 6, 'SN': 5},
    place_in_the_backbone: {'IBN': 6},
    ibn_net: {'IBN': 5, 'SyncIBN': 2},
}


@pytest.fixture(params=CHANGES, ids=lambda change: change.__name__)
def change(request):
    return request.param


@pytest.fixture
def trained(scope, change, tmp_path):
    """A config file, the model that a runner would train of it, and its checkpoint."""
    pytest.importorskip(scope)
    cfg = Config.fromfile(CONFIGS[scope])
    change(cfg.model)
    path = tmp_path / 'config.py'
    cfg.dump(path)
    with DefaultScope.overwrite_default_scope(scope):
        model = MODELS.build({'data_preprocessor': cfg.get('data_preprocessor'), **cfg.model})
    randomize(model).eval()
    for name, value in model.named_buffers():
        if 'running' in name:
            value.uniform_(0.5, 1.5)
    meta = {'dataset_meta': {'classes': ['a'] * 11, 'palette': [[0, 0, 0]] * 11}}
    weights = tmp_path / 'weights.pth'
    torch.save({'meta': meta, 'state_dict': model.state_dict()}, weights)
    return model, str(path), str(weights)


def interfaces(scope, config, weights):
    """The models that they build, and the scores on IMAGE by each."""
    if scope == 'mmdet':
        from mmdet.apis import DetInferencer, inference_detector, init_detector

        model = init_detector(config, weights, device='cpu')
        yield model, inference_detector(model, IMAGE).pred_instances.scores
        own = DetInferencer(config, weights, 'cpu', show_progress=False)
        yield own.model, own(IMAGE)['predictions'][0]['scores']
    elif scope == 'mmseg':
        from mmseg.apis import MMSegInferencer, inference_model, init_model

        model = init_model(config, weights, 'cpu')
        yield model, inference_model(model, IMAGE).seg_logits.data
        own = MMSegInferencer(config, weights, device='cpu')
        yield own.model, own(IMAGE, return_datasamples=True).seg_logits.data
    else:
        from mmpretrain.apis import ImageClassificationInferencer, init_model

        for model in (init_model(config, weights), config):
            own = ImageClassificationInferencer(model, weights, device='cpu')
            yield own.model, own(IMAGE)[0]['pred_scores']


def local(kind):
    """mmengine's inferencers exchange SyncBatchNorm for what computes the same in evaluation."""
    return kind.replace('_BatchNormXd', 'SyncBatchNorm')


@pytest.mark.slow
@all_scopes
def test_the_network_is_the_trained_one(scope, change, trained):
    model, config, weights = trained
    kinds = list(norm_layers(model).values())
    want = dict(CHANGES[change])
    if change is ibn_net and scope != 'mmseg':  # whose config has SyncBN
        want = {'IBN': 7}
    assert {kind: kinds.count(kind) for kind in want} == want
    scores = []
    with DefaultScope.overwrite_default_scope(scope):  # mm's functions leave theirs behind
        for built, found in interfaces(scope, config, weights):
            assert {n: local(kind) for n, kind in norm_layers(built).items()} == {
                n: local(kind) for n, kind in norm_layers(model).items()
            }
            assert not built.training
            for name, value in model.state_dict().items():
                assert torch.equal(built.state_dict()[name], value), name
            scores.append(torch.as_tensor(found))
    assert len(scores) == 2
    assert scores[0].numel() > 0
    torch.testing.assert_close(*scores, rtol=1e-5, atol=1e-6, check_dtype=False)
