"""The estimate of a checkpoint's size."""

import io

import pytest
import torch
from torch import nn

from normplug.resume.size import checkpoint_bytes


@pytest.mark.parametrize(
    ('optimizer', 'cls'),
    [
        ({'type': 'SGD'}, torch.optim.SGD),
        ({'type': 'SGD', 'momentum': 0.9}, torch.optim.SGD),
        ({'type': 'Adam', 'amsgrad': True}, torch.optim.Adam),
        ({'type': 'AdamW'}, torch.optim.AdamW),
        ({'type': 'RMSprop'}, torch.optim.RMSprop),
        ({'type': 'Adagrad'}, torch.optim.Adagrad),
    ],
    ids=lambda value: '-'.join(map(str, value.values())) if isinstance(value, dict) else '',
)
def test_the_estimate_is_the_size_of_a_real_checkpoint(optimizer, cls):
    model = nn.Sequential(nn.Linear(300, 300), nn.BatchNorm1d(300), nn.Linear(300, 300))
    model[0].requires_grad_(False)
    options = {key: value for key, value in optimizer.items() if key != 'type'}
    trained = cls([p for p in model.parameters() if p.requires_grad], lr=0.1, **options)
    model(torch.randn(2, 300)).sum().backward()
    trained.step()
    file = io.BytesIO()
    torch.save({'state_dict': model.state_dict(), 'optimizer': trained.state_dict()}, file)
    overhead = len(file.getvalue()) - checkpoint_bytes(model, optimizer)
    assert 0 < overhead < 10_000
