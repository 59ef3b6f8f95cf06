"""``reset_parameters`` makes a layer new: between folds, or one from the meta device."""

import pytest
import torch
from torch import nn

from normplug import KN, NORMS, SN, SSN
from normplug.launch.portable_ddp import make_sync_bn_portable
from tests.cases import CASES, Case, all_cases, random_input

OPTIONS = [
    Case('sn_bn', lambda c: SN(c, logit_init='bn')),
    Case('sn_ln_of_two', lambda c: SN(c, using_in=False, logit_init='ln')),
    *(Case(f'frozen_{n}', lambda c, kind=kind: kind(c, frozen=True)) for n, kind in NORMS.items()),
    Case('frozen_sn_bn', lambda c: SN(c, logit_init='bn', frozen=True)),
    Case('frozen_kn_learned', lambda c: KN(c, gain='learned', transition='linear', frozen=True)),
    Case('portable', lambda c: portable(c)),
]
# The cases whose layer was changed after it was built.
CHANGED = ('ssn_radius', 'ssn_decided')
FRESH = [case for case in CASES if case.name not in CHANGED] + OPTIONS
fresh_cases = pytest.mark.parametrize('case', FRESH, ids=lambda case: case.name)


def portable(channels):
    layer = nn.SyncBatchNorm(channels)
    make_sync_bn_portable(layer)
    return layer


def assert_same_state(layer, want):
    state, want = layer.state_dict(), want.state_dict()
    assert state.keys() == want.keys()
    for name, value in state.items():
        assert value.dtype == want[name].dtype, name
        assert torch.equal(value, want[name]), name


def spoil(layer):
    with torch.no_grad():
        for value in layer.state_dict().values():
            value.fill_(7)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@fresh_cases
def test_a_layer_begins_anew(case, dtype):
    layer = case.build(4).to(dtype)
    layer.weight.requires_grad_(False)
    before = [(parameter, parameter.requires_grad) for parameter in layer.parameters()]
    spoil(layer)
    layer.reset_parameters()
    assert_same_state(layer, case.build(4).to(dtype))
    for parameter, (same, flag) in zip(layer.parameters(), before, strict=True):
        assert parameter is same  # as the optimizer has it
        assert parameter.requires_grad == flag


@fresh_cases
def test_a_layer_of_the_meta_device_becomes_real(case, monkeypatch):
    monkeypatch.setattr('tests.cases.link_kalman', lambda *_: None)  # by a run, which has no values
    with torch.device('meta'):
        layer = case.build(4)
    assert all(value.is_meta for value in layer.state_dict().values())
    layer.to_empty(device='cpu')
    spoil(layer)
    layer.reset_parameters()
    assert_same_state(layer, case.build(4))


@pytest.mark.parametrize('choice', [0, 2])
def test_ssn_forgets_radius_and_choices(choice):
    layer = SSN(4)
    layer.radius.fill_(0.9)
    layer.mean_choice[choice] = layer.var_choice[choice] = 1
    layer.reset_parameters()
    assert_same_state(layer, SSN(4))


@all_cases
def test_running_statistics_begin_anew_alone(case):
    layer, twin = case.build(4), case.build(4)
    spoil(layer)
    layer.reset_running_stats()
    for name, value in layer.state_dict().items():
        statistic = name.startswith(('running', 'num_batches'))
        want = twin.state_dict()[name] if statistic else torch.full_like(value, 7)
        assert torch.equal(value, want), name


@all_cases
def test_training_after_a_reset_is_a_first_training(case):
    layer, twin = case.build(4), case.build(4)
    if 'ssn_' in case.name:
        twin.reset_parameters()
    x = random_input((2, 4, 3, 3))
    layer(x * 3 + 1)
    layer.reset_parameters()
    assert torch.equal(layer(x), twin(x))
    assert_same_state(layer, twin)


def test_what_was_registered_otherwise_is_not_left_as_it_is():
    layer = SN(4)
    layer.register_buffer('seen', torch.zeros(4))
    with pytest.raises(NotImplementedError, match=r'SN cannot reset seen: register .* add_state'):
        layer.reset_parameters()


@pytest.fixture
def process_group():
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group('gloo', store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_fsdp_2_makes_a_sharded_layer_real(process_group):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    with torch.device('meta'):
        net = nn.Sequential(nn.Linear(3, 4), SN(4, using_in=False, logit_init='bn'))
    fully_shard(net, mesh=init_device_mesh('cpu', (1,)))
    net.to_empty(device='cpu')
    net[1].reset_parameters()
    want = SN(4, using_in=False, logit_init='bn').state_dict()
    for name, value in net[1].state_dict().items():
        value = value.full_tensor() if hasattr(value, 'full_tensor') else value
        assert torch.equal(value, want[name]), name
