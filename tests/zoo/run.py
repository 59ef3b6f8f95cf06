"""What every model of the zoos must do: one training step and one prediction."""

from dataclasses import replace
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from normplug import NORMS, BaseNorm, link_kalman
from tests.mm.norm_layers import own_layers
from tests.zoo import inputs
from tests.zoo.cases import Case
from tests.zoo.shrink import nodes, read_config, set_norm, shrink


def build(case: Case) -> tuple[nn.Module, dict]:
    """The small model with the case's normalizer, initialized as by a runner, and a batch."""
    with DefaultScope.overwrite_default_scope(case.scope):
        cfg = small_config(case, case.config)
        if case.teacher:
            teacher = small_config(replace(case, options={}), case.teacher)
            cfg.model.update(teacher_config=teacher, teacher_ckpt=None)
        if case.placement:
            norms = [dict(where=at, norm_cfg=case.norm_cfg()) for at in case.placement]
            cfg.model.update(type='NormPlacement', model_type=cfg.model.type, norms=norms)
        data = batch(case, cfg)
        model = MODELS.build(cfg.model)
        model.init_weights()
    return model, data


def small_config(case: Case, name: str) -> Config:
    cfg = read_config(case.scope, name)
    cfg.model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))  # as the runner does
    shrink(cfg.model, case.factor, case.size)
    set_norm(cfg.model, case.norm_cfg())
    cfg.merge_from_dict({f'model.{key}': value for key, value in case.options.items()})
    return cfg


def batch(case: Case, cfg: Config) -> dict:
    """Images and truth for a config, whose labels are classes that it has."""
    numbers = [node.get('num_classes', 0) for _, node in nodes(cfg.model)]
    classes = min((number for number in numbers if number > 1), default=2)
    if case.scope == 'mmdet':
        with_mask = any(
            node.get('with_mask', node.get('type') == 'LoadPanopticAnnotations')
            for _, node in nodes(cfg.train_dataloader)
        )
        return inputs.detection(case.size, classes, with_mask, *case.semantic)
    make = inputs.segmentation if case.scope == 'mmseg' else inputs.classification
    return make(case.size, classes)


def check_norms(model: nn.Module, case: Case) -> None:
    """The normalizer is there, and no batch or group norm is left."""
    layers = own_layers(model)
    if case.untouched:
        assert not layers
        return
    assert layers
    assert {type(layer) for layer in layers.values()} == {NORMS[case.norm]}
    left = foreign_norms(model)
    assert not left, f'{len(left)} norms that norm_cfg did not reach, such as {left[:3]}'


def foreign_norms(model: nn.Module) -> list[str]:
    """Names of batch, instance and group norms that are not ours."""
    kinds = (_NormBase, nn.GroupNorm)
    return [name for name, module in model.named_modules() if isinstance(module, kinds)]


def check_training(model: nn.Module, batch: dict, case: Case) -> None:
    """One step: loss and gradients are finite, every norm that trains has seen the batch."""
    model.train()
    as_in_a_runner(model)
    data = model.data_preprocessor(batch, training=True)

    def loss() -> Tensor:
        return model.parse_losses(model(**data, mode='loss'))[0]

    if case.norm == 'KN':
        reports = link_kalman(model, loss)
        linked = [report.name for report in reports if report.predecessors]
        assert len(linked) >= len(reports) / 2, f'{len(linked)} of {len(reports)} KN are linked'
    value = loss()
    assert torch.isfinite(value), f'loss {value}'
    value.backward()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    bad = [name for name, grad in grads.items() if not torch.isfinite(grad).all()]
    assert not bad, f'gradients are not finite: {bad[:3]}'
    still = []
    for name, layer in own_layers(model).items():
        if not _moved(layer):
            still.append(name)
        elif f'{name}.weight' not in grads:
            still.append(f'{name} (no gradient)')
    assert not still, f'{len(still)} norms did not train: {still[:3]}'
    optimizer.step()


def as_in_a_runner(model: nn.Module) -> None:
    """What a runner and mmdet's SetEpochInfoHook tell a model at the first iteration."""
    for key, value in dict(iter=0, epoch=0, max_iters=10, max_epochs=10).items():
        MessageHub.get_current_instance().update_info(key, value)
    if hasattr(model, 'set_epoch'):
        model.set_epoch(0)


def _moved(layer: BaseNorm) -> bool:
    running = layer.running()
    if running is None:  # as GW, which has none
        return True
    mean, spread, batches = running
    first = torch.eye(spread.shape[-1]) if spread.dim() > 1 else torch.ones_like(spread)
    finite = mean.isfinite().all() and spread.isfinite().all()
    return bool(batches > 0 and finite and (spread != first).any())


def check_prediction(model: nn.Module, batch: dict, case: Case) -> None:
    """One image, as in mm's test dataloaders: finite numbers of the right shape."""
    model.eval()
    with torch.no_grad():
        (sample,) = model.test_step({key: values[:1] for key, values in batch.items()})
    CHECKS[case.scope](sample, case.size)


def _check_detection(sample: Any, size: int) -> None:
    if 'pred_panoptic_seg' in sample:
        assert sample.pred_panoptic_seg.sem_seg.shape == (1, size, size)
        return
    found = sample.pred_instances
    assert len(found)
    assert found.bboxes.shape == (len(found), 4)
    assert found.scores.shape == found.labels.shape == (len(found),)
    _check_finite(found)


def _check_segmentation(sample: Any, size: int) -> None:
    logits, labels = sample.seg_logits.data, sample.pred_sem_seg.data
    assert logits.shape[1:] == (size, size)
    assert labels.shape == (1, size, size)
    assert labels.min() >= 0
    assert labels.max() < max(2, len(logits))
    assert torch.isfinite(logits).all()


def _check_classification(sample: Any, size: int) -> None:
    assert torch.isfinite(sample.pred_score).all()
    assert abs(sample.pred_score.sum() - 1) < 1e-3
    assert sample.pred_label == sample.pred_score.argmax()


CHECKS = {
    'mmdet': _check_detection,
    'mmseg': _check_segmentation,
    'mmpretrain': _check_classification,
}


def _check_finite(element: BaseDataElement) -> None:
    for key, value in element.items():
        if isinstance(value, Tensor):
            assert torch.isfinite(value.float()).all(), key
