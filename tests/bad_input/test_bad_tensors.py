"""What a norm layer says to an input that is not for it; its state stays as it was."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

from normplug.norms import IBN, SN, PortableSyncBN


@dataclass(frozen=True)
class Row:
    name: str
    make: Callable
    messages: tuple[str, ...]


INPUTS = [
    Row('other channels', lambda: torch.rand(2, 6, 5, 5),
        ('was built for 4 channels', 'an input of 6: (2, 6, 5, 5)')),
    Row('channels last', lambda: torch.rand(2, 5, 5, 4),
        ('was built for 4 channels (num_features)', '(2, 5, 5, 4)')),
    Row('one axis', lambda: torch.rand(4), ('an input of 1 axes: (4,)', '(N, C, *spatial)')),
    Row('six axes', lambda: torch.rand(1, 4, 2, 2, 2, 2), ('an input of 6 axes',)),
    Row('no axis', lambda: torch.rand(()), ('an input of 0 axes',)),
    Row('integers', lambda: torch.ones(2, 4, 3, 3, dtype=torch.uint8),
        ('floating-point input, got torch.uint8', '.float()')),
    Row('complex', lambda: torch.ones(2, 4, 3, 3, dtype=torch.complex64),
        ('floating-point input, got torch.complex64',)),
    Row('truth values', lambda: torch.ones(2, 4, 3, 3, dtype=torch.bool), ('got torch.bool',)),
    Row('sparse', lambda: torch.ones(2, 4, 3, 3).to_sparse(),
        ('dense tensors, got torch.sparse_coo', '.to_dense()')),
    Row('another device', lambda: torch.ones(2, 4, 3, 3, device='meta'),
        ('is on cpu, but its input is on meta', '.to(device)')),
    Row('no pixels', lambda: torch.rand(2, 4, 0, 3), ('without pixels: (2, 4, 0, 3)',)),
    Row('a list', lambda: [torch.rand(2, 4, 3, 3)], ('takes a tensor, got list',)),
    Row('an array', lambda: torch.rand(2, 4, 3, 3).numpy(), ('takes a tensor, got ndarray',)),
    Row('None', lambda: None, ('takes a tensor, got NoneType',)),
]  # fmt: skip

TYPES = [SN, IBN, PortableSyncBN]


@pytest.mark.parametrize('kind', TYPES)
@pytest.mark.parametrize('row', INPUTS, ids=lambda row: row.name)
def test_refused(row, kind):
    norm = kind(4).train()
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    with pytest.raises((TypeError, ValueError)) as caught:
        norm(row.make())
    assert str(caught.value).startswith(kind.__name__)
    for message in row.messages:
        assert message in str(caught.value)
    after = norm.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.parametrize('kind', TYPES)
@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
def test_nan_propagates_and_leaves_the_statistics(kind, bad):
    norm = kind(4).train()
    norm(torch.rand(2, 4, 3, 3))
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    x = torch.rand(2, 4, 3, 3)
    x[0, 0, 0, 0] = bad
    assert not norm(x).isfinite().all()
    for name in ('running_mean', 'running_var'):
        assert norm.state_dict()[name].isfinite().all()
    if kind is not IBN:  # channel 0 of IBN is not in the batch statistics
        assert norm.running_mean[0] == before['running_mean'][0]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'num_features': 0}, 'num_features must be a positive integer, got 0'),
        ({'num_features': 4.0}, 'num_features must be a positive integer, got 4.0'),
        ({'num_features': True}, 'num_features must be a positive integer, got True'),
        ({'eps': 0}, 'eps must be a positive number, got 0'),
        ({'eps': float('nan')}, 'eps must be a positive number, got nan'),
        ({'momentum': -0.1}, r'momentum must lie in \[0, 1\] or be None, got -0.1'),
        ({'momentum': 'high'}, r"momentum must lie in \[0, 1\] or be None, got 'high'"),
        ({'frozen': 'no'}, "frozen must be True or False, got 'no'"),
    ],
)
@pytest.mark.parametrize('kind', TYPES)
def test_options_out_of_range(kind, options, message):
    with pytest.raises(ValueError, match=rf"norm_cfg=dict\(type='{kind.__name__}'\): {message}"):
        kind(**{'num_features': 4, **options})
