"""A loss of NaN stops the training and the message names where it began."""

import math

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from normplug import SN
from normplug.hooks import NonFiniteLossHook
from normplug.hooks.nonfinite_loss import NonFiniteLossError

NAN = float('nan')


@pytest.fixture(autouse=True)
def no_environment_report(monkeypatch):
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)


@pytest.fixture(params=['at once', 'after backward'])
def read(request, monkeypatch):
    """When the check is read: as on a CPU, as on a GPU."""
    if request.param == 'after backward':
        monkeypatch.setattr('normplug.hooks.nonfinite_loss._COPIES', ('cpu',))
    return request.param


class Layer(nn.Linear):
    """Spoils its output in iteration ``at``."""

    def __init__(self, at=None, value=NAN):
        super().__init__(4, 4)
        self.at, self.value = at, value

    def forward(self, x):
        y = super().forward(x)
        return y * self.value if Model.iteration == self.at else y


class Block(nn.Module):
    """An operation of its own between two layers."""

    def __init__(self, at=None):
        super().__init__()
        self.first, self.second, self.at = nn.Linear(4, 4), nn.Linear(4, 4), at

    def forward(self, x):
        y = self.first(x)
        return self.second(y.abs().neg().log() if Model.iteration == self.at else y)


class Model(BaseModel):
    """Knows the iteration, from 1: batches begin with it."""

    iteration = 0

    def __init__(self, body, loss_at=None):
        super().__init__()
        self.norm = SN(4)
        self.body = body
        self.head = nn.Linear(4, 1)
        self.loss_at = loss_at
        self.register_buffer('mask', torch.tensor(-math.inf))  # as attention has

    def forward(self, x, mode='tensor'):
        Model.iteration = x[0, 0].item()
        y = self.head(self.body(self.norm(x[..., None])[..., 0]))
        scale = NAN if Model.iteration == self.loss_at else 1.0
        return {'loss_cls': y.square().mean(), 'loss_bbox': y.abs().mean() * scale}


class Data(torch.utils.data.Dataset):
    """Two samples for each of 8 iterations."""

    def __init__(self, spoil_at=None):
        self.spoil_at = spoil_at

    def __len__(self):
        return 16

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        x = torch.randn(4, generator=generator)
        x[0] = index // 2 + 1
        if x[0] == self.spoil_at:
            x[3] = NAN
        return {'x': x}


def runner(folder, model, data=None, interval=1, lr=0.01, hooks=(), **optim_wrapper):
    return Runner(
        model,
        str(folder),
        train_dataloader={
            'dataset': data or Data(),
            'batch_size': 2,
            'sampler': {'type': 'DefaultSampler', 'shuffle': False},
            'collate_fn': {'type': 'default_collate'},
        },
        train_cfg={'by_epoch': False, 'max_iters': 6},
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': lr}, **optim_wrapper},
        default_hooks={'checkpoint': {'type': 'CheckpointHook', 'by_epoch': False, 'interval': 1}},
        custom_hooks=[{'type': 'NonFiniteLossHook', 'interval': interval}, *hooks],
        experiment_name=folder.name,
        randomness={'seed': 0},
    )


def message(training):
    with pytest.raises(NonFiniteLossError) as error:
        training.train()
    return str(error.value)


@pytest.mark.parametrize(
    ('model', 'began'),
    [
        (
            lambda: Model(nn.Sequential(Layer(), Layer(3), Layer())),
            'It began in body.1 (Layer): its inputs are finite, and 8 of 8 values of its output '
            'are NaN. ',
        ),
        (
            lambda: Model(Layer(3, math.inf)),
            'It began in body (Layer): its inputs are finite, and 8 of 8 values of its output are '
            'infinite. ',
        ),
        (
            lambda: Model(nn.Sequential(Block(), Block(3))),
            'It began in body.1 (Block): its inputs are finite, and 8 of 8 values of its output '
            'are NaN, in its own code after body.1.first. ',
        ),
        (
            lambda: Model(Layer(), loss_at=3),
            'It began in the computation of loss_bbox after head: every module returned finite '
            'values. ',
        ),
    ],
    ids=['layer', 'infinite', 'functional', 'loss'],
)
def test_names_where_it_began(tmp_path, model, began, read):
    text = message(runner(tmp_path, model()))
    assert text.startswith('the loss is NaN or Inf in iteration 3 (epoch 1). ')
    assert began in text
    assert f'The last checkpoint, {tmp_path}/iter_2.pth, is from before' in text
    assert sorted(path.name for path in tmp_path.glob('*.pth')) == ['iter_1.pth', 'iter_2.pth']


def test_names_the_input(tmp_path):
    text = message(runner(tmp_path, Model(Layer()), Data(spoil_at=3)))
    assert 'It began in the input: the batch already has NaN or Inf when the model gets it' in text


def test_before_any_checkpoint(tmp_path):
    text = message(runner(tmp_path, Model(Layer(1))))
    assert 'in iteration 1 ' in text
    assert 'There is no checkpoint yet' in text


class Root(nn.Module):
    """Finite, with an infinite derivative at 0: the step makes the weight NaN."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4))

    def forward(self, x):
        return x + (self.weight.square().sqrt() if Model.iteration == 2 else self.weight)


def test_names_weights_that_a_step_spoiled(tmp_path):
    body = nn.Sequential(Layer(), Root())
    training = runner(tmp_path, Model(body), lr=0.0)
    training._hooks = [h for h in training.hooks if type(h).__name__ != 'CheckpointHook']
    text = message(training)
    assert 'in iteration 3 ' in text
    assert (
        'It began in the weights: NaN or Inf is in body.1.weight (the step of iteration 2' in text
    )
    assert 'shows first in body.1 (Root)' in text


def test_no_checkpoint_of_spoiled_weights(tmp_path):
    """The loss of iteration 2 is finite, its step is not, and then comes the checkpoint."""
    text = message(runner(tmp_path, Model(nn.Sequential(Layer(), Root())), lr=0.0))
    assert '1 tensors of the model, body.1.weight among them, have NaN or Inf' in text
    assert [path.name for path in tmp_path.glob('*.pth')] == ['iter_1.pth']
    saved = torch.load(tmp_path / 'iter_1.pth', weights_only=True)
    assert saved['state_dict']['mask'] == -math.inf


def test_nor_of_their_average(tmp_path):
    ema = {'type': 'EMAHook'}
    text = message(runner(tmp_path, Model(nn.Sequential(Layer(), Root())), lr=0.0, hooks=[ema]))
    assert 'body.1.weight among them' in text


def test_interval(tmp_path):
    training = runner(tmp_path, Model(nn.Sequential(Layer(), Layer(3), Layer())), interval=2)
    training._hooks = [h for h in training.hooks if type(h).__name__ != 'CheckpointHook']
    text = message(training)
    assert 'in iteration 4 ' in text
    assert 'It began in the weights: ' in text
    with pytest.raises(ValueError, match='interval must be at least 1, not 0'):
        NonFiniteLossHook(interval=0)


def test_accumulated_gradients(tmp_path, read):
    text = message(runner(tmp_path, Model(Layer(3)), accumulative_counts=4))
    assert 'in iteration 3 ' in text
    assert 'It began in body (Layer)' in text


def test_dropout_is_repeated_with_the_same_numbers(tmp_path):
    """NaN comes by chance, in one of four layers."""

    class Chance(nn.Module):
        def forward(self, x):
            y = x.clone()
            y[:, 0] = torch.where(torch.rand(()) < 0.3, NAN, y[:, 0])
            return y

    training = runner(tmp_path, Model(nn.Sequential(*[Chance() for _ in range(4)])))
    assert ' (Chance): its inputs are finite' in message(training)


class Reads(TorchDispatchMode):
    """What happens in an iteration, in order: forward, a value read, backward, the step."""

    def __init__(self, model, optimizer):
        super().__init__()
        self.seen = []
        model.head.register_forward_hook(lambda *_: self.seen.append('forward'))
        model.head.register_full_backward_hook(lambda *_: self.seen.append('backward'))
        optimizer.register_step_pre_hook(lambda *_: self.seen.append('step'))

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            self.seen.append('read')
        return func(*args, **(kwargs or {}))


def test_nothing_waits_between_forward_and_backward(tmp_path, read):
    training = runner(tmp_path, Model(Layer()))
    training.train()  # the hook is in place
    hook = next(h for h in training.hooks if isinstance(h, NonFiniteLossHook))
    x = torch.ones(2, 4)
    hook.before_train_iter(training, 0, {'x': x})
    with Reads(training.model, training.optim_wrapper.optimizer) as reads:
        training.model.train_step({'x': x}, training.optim_wrapper)
    order = ['read', 'backward'] if read == 'at once' else ['backward', 'read']
    assert reads.seen[reads.seen.index('forward') :] == ['forward', *order, 'step']


def test_an_error_in_backward_that_the_nan_led_to(tmp_path, read):
    training = runner(tmp_path, Model(nn.Sequential(Layer(), Layer(3))))
    with torch.autograd.set_detect_anomaly(True):
        text = message(training)
    assert 'in iteration 3 ' in text
    assert 'It began in body.1 (Layer)' in text


class Unwrapped(OptimWrapper):
    """Its step does not come by ``backward``."""

    def update_params(self, loss, **_):
        loss.backward()
        self.step()
        self.zero_grad()


def test_a_wrapper_with_a_backward_of_its_own(tmp_path, read):
    training = runner(tmp_path, Model(nn.Sequential(Layer(), Layer(3))))
    training.optim_wrapper = Unwrapped(torch.optim.SGD(training.model.parameters(), 0.01))
    text = message(training)
    assert 'in iteration 3 ' in text
    if read == 'at once':
        assert 'It began in body.1 (Layer)' in text
    else:
        assert 'It began in the weights: NaN or Inf is in norm.weight' in text
        assert '(the step of iteration 3 left it there)' in text


class Counting(nn.Module):
    hooks = 0

    def forward(self, x):
        Counting.hooks = max(Counting.hooks, len(self._forward_hooks))
        return x


def test_training_is_the_same_with_it_and_no_module_is_watched(tmp_path, read):
    weights = []
    for hook in (True, False):
        torch.manual_seed(0)
        model = Model(nn.Sequential(Layer(), nn.Dropout(), Counting()))
        training = runner(tmp_path / str(hook), model)
        if not hook:
            training._hooks = [h for h in training.hooks if not isinstance(h, NonFiniteLossHook)]
        training.train()
        weights.append(model.state_dict())
    assert Counting.hooks == 0
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


def test_registered_in_the_root():
    assert HOOKS.module_dict['NonFiniteLossHook'] is NonFiniteLossHook
