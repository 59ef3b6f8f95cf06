"""Activations as models compose them: followed, and their moments against samples."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from normplug import KN, link_kalman
from normplug.kalman.states import State
from normplug.stats import Moments
from tests.kalman.sampling import assert_in_standard_errors, drawn

mmcv_cnn = pytest.importorskip('mmcv.cnn')

CHANNELS = 7
GAUSSIAN = Moments(
    torch.linspace(-2, 3, CHANNELS).double(), torch.linspace(1, 0.3, CHANNELS).double().square()
)


class Function(nn.Module):
    def __init__(self, function, **parameters):
        super().__init__()
        self.function = function
        for name, shape in parameters.items():
            setattr(self, name, nn.Parameter(torch.rand(shape) + 0.5))

    def forward(self, x):
        return self.function(x, *self.parameters())


def slopes(count):
    layer = nn.PReLU(count)
    nn.init.uniform_(layer.weight, 0.1, 0.9)
    return layer


def of_mm(kind, **options):
    return lambda: mmcv_cnn.build_activation_layer(dict(type=kind, **options))


FOLLOWED = {
    **{kind: of_mm(kind) for kind in ('ReLU', 'LeakyReLU', 'ReLU6', 'ELU', 'Sigmoid', 'Tanh')},
    **{kind: of_mm(kind) for kind in ('SiLU', 'GELU', 'Swish', 'HSwish', 'Clip')},
    'Clip(0, 2)': of_mm('Clip', min=0, max=2),
    'HSigmoid': of_mm('HSigmoid'),
    'HSigmoid(1, 2)': of_mm('HSigmoid', bias=1.0, divisor=2.0),
    'the HSwish of old mmcv': lambda: mmcv_cnn.HSwish(inplace=True),
    'Mish': nn.Mish,
    'SELU': nn.SELU,
    'Softplus': nn.Softplus,
    'Hardsigmoid': nn.Hardsigmoid,
    'one slope': lambda: slopes(1),
    'a slope for each channel': lambda: slopes(CHANNELS),
    'LeakyReLU in place': lambda: nn.LeakyReLU(0.2, inplace=True),
    'ELU in place': lambda: nn.ELU(inplace=True),
    'SiLU in place': lambda: nn.SiLU(inplace=True),
    'x * sigmoid(x) in place': lambda: Function(lambda x: x.mul_(x.sigmoid())),
    'one activation after another': lambda: nn.Sequential(nn.SiLU(), nn.ReLU(), nn.Tanh()),
    'x + relu(x)': lambda: Function(lambda x: x + x.relu()),
    'where': lambda: Function(lambda x: torch.where(x > 0, x, 0.3 * x.expm1())),
    'scaled': lambda: Function(lambda x, w, b: 2 - w * x / b, w=(CHANNELS, 1, 1), b=()),
}


def linked(activation, size=(6, 6)):
    convs = nn.Conv2d(3, CHANNELS, 1), nn.Conv2d(CHANNELS, 2, 1)
    net = nn.Sequential(convs[0], KN(CHANNELS), activation, convs[1], KN(2))
    image = torch.randn(2, 3, *size)
    report = link_kalman(net, lambda: net(image))[1]
    return net, image, report


@pytest.mark.parametrize('name', FOLLOWED)
def test_moments_against_samples(name):
    torch.manual_seed(0)
    activation = FOLLOWED[name]()
    net, image, report = linked(activation)
    assert report.predecessors == ('1',), report
    node = net[4].link._prior.parts[0]
    (leaf,) = node.leaves()
    leaf.set(State(GAUSSIAN, (6, 6)))
    with torch.no_grad():
        got = node.state().moments
        y = activation.double()(drawn(GAUSSIAN, (1, 1), 50_000)).flatten(1)
    assert_in_standard_errors(got.mean, y)
    assert_in_standard_errors(got.var, (y - got.mean).square())
    net.float()(image).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_slopes_are_read_at_each_forward_and_trained():
    net, _, _ = linked(slopes(CHANNELS))
    node = net[4].link._prior.parts[0]
    (leaf,) = node.leaves()
    means = []
    for value in (0.25, 1.0):
        nn.init.constant_(net[2].weight, value)
        leaf.set(State(GAUSSIAN, (6, 6)))
        means.append(node.state().moments.mean)
    torch.testing.assert_close(means[1], GAUSSIAN.mean)  # of slope 1: the identity
    assert (means[0] > means[1])[:-1].all()
    means[1].sum().backward()
    # E of min(X, 0) for X of the channel.
    below = -transformed_relu(Moments(-GAUSSIAN.mean, GAUSSIAN.var))
    torch.testing.assert_close(net[2].weight.grad.double(), below, rtol=1e-3, atol=1e-4)


def transformed_relu(gaussian):
    m, s = gaussian.mean, gaussian.var.sqrt()
    normal = torch.distributions.Normal(0.0, 1.0)
    return m * normal.cdf(m / s) + s * normal.log_prob(m / s).exp()


@pytest.mark.parametrize(
    ('function', 'shapes', 'end'),
    [
        (lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(), {}, 'torch.Tensor.mul'),
        (lambda x: x * torch.rand(2, 1, 1, 1), {}, 'torch.Tensor.mul'),  # drop path
        (lambda x: x - x.mean(), {}, 'torch.Tensor.sub'),
        (lambda x, w: x * w, {'w': (6,)}, 'torch.Tensor.mul'),  # of each column
        (lambda x, w: x + w, {'w': (1, 1, 6, 6)}, 'torch.Tensor.add'),  # of each position
        (lambda x: x.clone().normal_(), {}, 'torch.Tensor.normal_'),
        (lambda x: x.cumsum(1), {}, 'torch.Tensor.cumsum'),
        (lambda x: F.normalize(x), {}, 'torch.nn.functional.normalize'),
        (lambda x: x.flip(-1), {}, 'torch.Tensor.flip'),
    ],
)
def test_what_is_no_function_of_each_value(function, shapes, end):
    report = linked(Function(function, **shapes))[2]
    assert report.reason.endswith(f'the path ends at {end}')
