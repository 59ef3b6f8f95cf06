"""A model, a metric and a config small enough to train in milliseconds."""

import json
from pathlib import Path

import torch
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel, BaseModule, BaseTTAModel
from mmengine.registry import DATASETS, METRICS, MODELS
from torch import nn


@DATASETS.register_module()
class TinyDataset(BaseDataset):
    def parse_data_info(self, raw_data_info):
        return raw_data_info


@MODELS.register_module()
class TinyBackbone(BaseModule):
    def __init__(self, width=4, init_cfg=None):
        super().__init__(init_cfg)
        self.fc = nn.Linear(1, width)
        self.bn = nn.BatchNorm1d(width)

    def forward(self, x):
        return self.bn(self.fc(x)).relu()


@MODELS.register_module()
class TinyKNBackbone(TinyBackbone):
    def __init__(self, width=4, init_cfg=None):
        super().__init__(width, init_cfg)
        self.bn = MODELS.build({'type': 'KN', 'num_features': width})


@MODELS.register_module()
class TinyCBNBackbone(TinyBackbone):
    def __init__(self, width=4, init_cfg=None):
        super().__init__(width, init_cfg)
        self.bn = MODELS.build({'type': 'CBN', 'num_features': width})


@MODELS.register_module()
class TinyPNBackbone(TinyBackbone):
    def __init__(self, width=4, init_cfg=None, **options):
        super().__init__(width, init_cfg)
        self.bn = MODELS.build({'type': 'PN', 'num_features': width, **options})


@MODELS.register_module()
class TinyBRNBackbone(TinyBackbone):
    def __init__(self, width=4, init_cfg=None, **options):
        super().__init__(width, init_cfg)
        self.bn = MODELS.build({'type': 'BRN', 'num_features': width, **options})


@MODELS.register_module()
class TinyWhitenedBackbone(TinyBackbone):
    def __init__(self, width=4, init_cfg=None):
        super().__init__(width, init_cfg)
        self.fc = MODELS.build({'type': 'WNNLinear', 'in_features': 1, 'out_features': width})


@MODELS.register_module()
class TinyModel(BaseModel):
    def __init__(self, backbone, classes=2, data_preprocessor=None):
        super().__init__(data_preprocessor)
        self.backbone = MODELS.build(backbone)
        self.head = nn.Linear(self.backbone.fc.out_features, classes)

    def forward(self, x, y, sample_idx, mode='tensor'):
        scores = self.head(self.backbone(x.float()[:, None]))
        if mode == 'loss':
            return {'loss': nn.functional.cross_entropy(scores, y)}
        return [{'scores': s, 'y': int(label)} for s, label in zip(scores, y, strict=True)]


@MODELS.register_module()
class TinyTTA(BaseTTAModel):
    def merge_preds(self, data_samples_list):
        return [samples[0] for samples in data_samples_list]


@METRICS.register_module()
class TinyAccuracy(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results += [s['scores'].argmax().item() == s['y'] for s in data_samples]

    def compute_metrics(self, results):
        return {'accuracy': sum(results) / len(results)}


CONFIG = """
custom_imports = dict(imports=['launch_tiny'])
experiment_name = '{name}'
work_dir = '{work_dir}'
model = dict(type='TinyModel', backbone=dict(type='TinyBackbone', width=4))


def loader(split):
    return dict(
        batch_size=2,
        sampler=dict(type='DefaultSampler', shuffle=True),
        collate_fn=dict(type='default_collate'),
        dataset=dict(
            type='TinyDataset',
            data_root='{data}',
            ann_file=split + '.json',
            data_prefix=dict(img_path='images'),
        ),
    )


train_dataloader, val_dataloader, test_dataloader = loader('train'), loader('val'), loader('val')
del loader
train_cfg = dict(by_epoch=False, max_iters=4, val_interval=4)
val_cfg = test_cfg = dict()
val_evaluator = test_evaluator = dict(type='TinyAccuracy')
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1))
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=1),
    checkpoint=dict(type='CheckpointHook', interval=2, by_epoch=False),
)
log_processor = dict(by_epoch=False)
randomness = dict(seed=0)
"""


class Project:
    """A folder with data, a config and, once trained, a work dir."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.data = folder / 'data'
        self.work_dir = folder / 'work'
        (self.data / 'images').mkdir(parents=True)
        # One epoch is longer than any training here: mmengine sleeps 2 s before the next one.
        for split, size in {'train': 16, 'val': 4}.items():
            samples = [{'x': float(i), 'y': i % 2} for i in range(size)]
            text = json.dumps({'metainfo': {}, 'data_list': samples})
            (self.data / f'{split}.json').write_text(text)
        self.config = folder / 'tiny.py'
        self.write_config()

    def write_config(self, more: str = '') -> str:
        """(Re)write the config with the lines ``more`` at its end; return its path."""
        self.config.write_text(
            # mmengine keeps one logger an experiment name.
            CONFIG.format(name=self.folder.name, work_dir=self.work_dir, data=self.data) + more
        )
        return str(self.config)

    def files(self) -> dict[str, bytes]:
        """Every file with its bytes, and every folder."""
        found = {str(p): p.read_bytes() for p in self.folder.rglob('*') if p.is_file()}
        return {**found, **{str(p): b'' for p in self.folder.rglob('*') if p.is_dir()}}

    def save_checkpoint(self, name: str, width: int = 4, **extra) -> str:
        """Save the weights of a TinyModel, as mmengine lays them out; return the path."""
        model = TinyModel({'type': 'TinyBackbone', 'width': width})
        path = self.folder / name
        torch.save({'meta': {}, 'state_dict': model.state_dict(), **extra}, path)
        return str(path)

    def log(self) -> str:
        """Return the text of all logs."""
        return '\n'.join(p.read_text() for p in sorted(self.work_dir.glob('*/*.log')))
