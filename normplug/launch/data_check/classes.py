"""Has the model as many outputs as the datasets have classes?"""

from __future__ import annotations

import re

from mmengine.config import Config
from torch import nn

from ..config import iter_datasets, scope_of
from ..errors import UserError
from .dataset_config import classes_of

__all__ = ['check_num_classes']

# Heads whose labels are the dataset's; others (an RPN's, HTC's semantic one) count differently.
_HEADS = re.compile(r'(^|\.)(bbox_head|mask_head|decode_head)(\.\d+)?$')


def check_num_classes(model: nn.Module, cfg: Config, phases: tuple[str, ...]) -> None:
    """Compare ``num_classes`` of the model's heads with the classes of mm's own datasets.

    Too few end a training with an index error (on a GPU a device-side assert), too many of a
    detector its evaluation. A segmentor may have more.

    Raises:
        UserError: they do not fit.
    """
    for phase in phases:
        loader, key = cfg.get(f'{phase}_dataloader') or {}, f'{phase}_dataloader'
        for dataset_key, dataset in iter_datasets(loader, key):
            found = classes_of(dataset, dataset_key, scope_of(cfg))
            if found is None or dataset.get('return_classes'):  # open vocabulary
                continue
            for name, head in model.named_modules():
                outputs = getattr(head, 'num_classes', None)
                if not (_HEADS.search(name) and isinstance(outputs, int)):
                    continue
                if any('RPN' in base.__name__ for base in type(head).__mro__):
                    continue  # a detector of one kind of object
                segments = name.endswith('decode_head') or '.decode_head' in name
                if getattr(head, 'out_channels', None) == 1 and segments:
                    continue  # two classes by one output
                if outputs < len(found) or (outputs > len(found) and not segments):
                    raise UserError(
                        f'model.{name}.num_classes is {outputs}, but {dataset_key}.metainfo has '
                        f'{len(found)} classes ({", ".join(found[:4])}'
                        f'{", ..." if len(found) > 4 else ""}): set it to {len(found)}, or correct '
                        'metainfo.classes'
                    )
