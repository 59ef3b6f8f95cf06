"""A training of mmseg with ISW, of seconds, and hooks that watch it. It needs mmseg."""

from contextlib import contextmanager

import numpy as np
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS, OPTIM_WRAPPERS, TRANSFORMS
from PIL import Image

from normplug.models.isw_layer import ISW
from tests.hooks import tiny_training as tiny

PLACES = ['backbone.bn1', 'backbone.layer1.1.IN', 'backbone.layer2.1.IN']
BEGIN, END = 3, 6


UNFORMATTED = property(lambda cfg: '# the config')


def without_formatting(cfg=None):
    """The same in a process of its own."""
    Config.pretty_text = UNFORMATTED


@TRANSFORMS.register_module()
class Darken:
    """A photometric change without random numbers."""

    def __call__(self, results):
        results['img'] = (results['img'] * np.array([0.3, 0.7, 1.0]) + 20).astype(np.uint8)
        return results


@HOOKS.register_module()
class WatchHook(Hook):
    """Keeps the losses of every step, and masks after it."""

    priority = 'LOWEST'

    def before_train(self, runner):
        self.losses, self.masks, self.seen = [], [], []
        model = runner.model
        model.register_forward_hook(self.see_losses)
        self.layers = [m for m in model.modules() if isinstance(m, ISW)]
        for layer in self.layers:
            layer.register_forward_hook(self.see)

    def see_losses(self, model, args, output):
        if model.training:
            self.losses.append(output)

    def see(self, layer, args, y):
        if layer.training:
            self.seen.append(args[0].detach().clone())

    def after_train_iter(self, runner, *args, **kwargs):
        self.masks.append([layer.mask.clone() for layer in self.layers])


def files(folder, number=3):
    if folder.exists():  # of another rank, or an earlier training
        return str(folder)
    generator = np.random.default_rng(0)
    for name, mode, shape in (('images', 'RGB', (24, 24, 3)), ('labels', 'L', (24, 24))):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(number):
            pixels = generator.integers(0, 255 if mode == 'RGB' else 2, shape, np.uint8)
            Image.fromarray(pixels, mode).save(folder / name / f'{i}.png')
    return str(folder)


def config(work_dir, *more_hooks, with_cp=False, entry='isw', **isw):
    cfg = tiny.config(work_dir, by_epoch=False, hooks=('SampleSeedHook',))
    data = files(work_dir.parent / 'data')
    cfg.default_scope = 'mmseg'
    cfg.experiment_name = f'{work_dir.parent.name}-{work_dir.name}'
    backbone = dict(type='IBNResNet', depth=18, num_stages=2, strides=(1, 2), dilations=(1, 1))
    backbone |= dict(ibn_cfg=(entry, entry), out_indices=(1,), base_channels=4, stem_channels=4)
    head = dict(type='FCNHead', in_channels=8, in_index=0, channels=4, num_classes=2)
    cfg.model = dict(
        type='EncoderDecoder',
        data_preprocessor=dict(type='SegDataPreProcessor', size=(24, 24)),
        backbone=dict(backbone, norm_cfg=dict(type='PortableSyncBN'), with_cp=with_cp),
        decode_head=dict(head, num_convs=1, norm_cfg=dict(type='PortableSyncBN')),
        test_cfg=dict(mode='whole'),
    )
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.collate_fn = dict(type='pseudo_collate')
        loader.dataset = dict(
            type='BaseSegDataset',
            data_root=data,
            data_prefix=dict(img_path='images', seg_map_path='labels'),
            img_suffix='.png',
            metainfo=dict(classes=('a', 'b')),
            pipeline=[*pipeline, dict(type='PackSegInputs')],
        )
    cfg.val_dataloader.batch_size = 1
    cfg.val_evaluator = dict(type='IoUMetric')
    cfg.train_cfg.update(max_iters=END, val_interval=END)
    cfg.default_hooks.checkpoint.interval = 2
    isw = dict(dict(type='ISWHook', begin=BEGIN, trials=2), **isw)
    cfg.custom_hooks = [*cfg.custom_hooks, isw, *more_hooks]
    return cfg


def trained(cfg):
    runner = tiny.build(cfg)
    runner.train()
    return runner, next((h for h in runner.hooks if isinstance(h, WatchHook)), None)


WATCH = dict(type='WatchHook')


@HOOKS.register_module()
class StateHook(Hook):
    """The weights that the masks are found with."""

    def after_train_iter(self, runner, *args, **kwargs):
        if runner.iter + 1 == BEGIN:
            self.state = {k: v.clone() for k, v in runner.model.state_dict().items()}


@OPTIM_WRAPPERS.register_module()
class AutocastWrapper(OptimWrapper):
    """mmengine's AmpOptimWrapper needs a GPU."""

    @contextmanager
    def optim_context(self, model):
        with super().optim_context(model), torch.autocast('cpu', torch.bfloat16):
            yield
