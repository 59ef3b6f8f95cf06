"""New coordinates against an independent transcription: float64, explicit pads and solvers."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from normplug.whitened import (
    EigenConv,
    PostGWNNConv,
    PreGWNNConv,
    WhiteningError,
    WNNConv,
    WNNLinear,
    plain_layers,
    rewrite,
)
from normplug.whitened.rewrite import coordinates_of

EPS = 1e-3
CONVS = {
    'wnn': (WNNConv, {}),
    'wnn, pca': (WNNConv, dict(zca=False)),
    'pre': (PreGWNNConv, dict(rank=1.0)),
    'post': (PostGWNNConv, {}),
    'eigen': (EigenConv, {}),
}
SHAPES = {
    'plain': dict(kernel_size=3, padding=1),
    'strided': dict(kernel_size=3, stride=2, padding=1),
    'dilated': dict(kernel_size=3, dilation=2, padding=(2, 1)),
    'no bias': dict(kernel_size=(1, 3), padding=(0, 2), bias=False),
    'reflected': dict(kernel_size=3, padding=1, padding_mode='reflect'),
    '1x1': dict(kernel_size=1),
}
all_convs = pytest.mark.parametrize('kind', CONVS)


def built(kind, shape='plain', **more):
    layer, own = CONVS[kind]
    layer = layer(5, 6, eps=EPS, **SHAPES[shape], **{**own, **more}).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    return layer


def inputs(number=3, channels=5):
    """Correlated channels with an offset."""
    mix = torch.randn(channels, channels, dtype=torch.float64)
    x = torch.randn(number, channels, 7, 6, dtype=torch.float64)
    return torch.einsum('dc,nchw->ndhw', mix, x) + 3 * torch.randn(1, channels, 1, 1).double()


def seen(layer, *batches):
    """Let the layer note the batches; returns its inputs, outputs and gradients as samples."""
    layer.train().sampling = True
    found = []
    for x in batches:
        y = layer(x)
        grad = torch.randn_like(y)
        y.backward(grad)
        found.append((x, y.detach(), grad))
        for part in (layer.seen_in, layer.seen_out):
            if part is not None:
                part.gather()
    layer.sampling = False
    layer.zero_grad()
    return [
        torch.cat([t.transpose(0, 1).flatten(1) for t in tensors], 1)
        for tensors in zip(*found, strict=True)
    ]


def inverse_root(cov):
    values, vectors = torch.linalg.eigh(cov + EPS * torch.eye(len(cov)).double())
    return vectors @ torch.diag(values**-0.5) @ vectors.T


def by_hand(layer, x):
    """V ∗ B (pad(x) − c), A times it, plus d: as the papers draw it."""
    mode = 'constant' if layer.padding_mode == 'zeros' else layer.padding_mode
    (top, side) = layer.padding
    padded = F.pad(x, (side, side, top, top), mode=mode)
    centred = padded - layer.in_mean.view(1, -1, 1, 1)
    if layer.in_matrix is not None:
        centred = F.conv2d(centred, layer.in_matrix[..., None, None])
    y = F.conv2d(centred, layer.weight, stride=layer.stride, dilation=layer.dilation)
    if layer.out_matrix is not None:
        y = F.conv2d(y, layer.out_matrix[..., None, None])
    given = layer.offset if layer.bias is None else layer.bias
    return y + given.view(1, -1, 1, 1)


@pytest.mark.parametrize('shape', SHAPES)
@all_convs
def test_the_function_stays_and_is_the_one_of_the_paper(kind, shape):
    layer = built(kind, shape)
    x = inputs()
    before = layer(x).detach()
    for _ in range(3):  # from any coordinates to the next
        seen(layer, inputs(2), inputs())
        report = rewrite(layer, coordinates_of(layer, 'conv'))
        assert report.moved == 0
        torch.testing.assert_close(layer(x), before, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(by_hand(layer, x), before, rtol=1e-10, atol=1e-10)


@all_convs
def test_gradients_are_those_of_the_formula(kind):
    layer = built(kind)
    seen(layer, inputs())
    rewrite(layer, coordinates_of(layer, 'conv'))
    x = inputs().requires_grad_()
    grads = []
    for function in (layer, lambda x: by_hand(layer, x)):
        y = function(x)
        torch.manual_seed(1)
        grads.append(
            torch.autograd.grad(y, [x, *layer.parameters()], torch.randn(y.shape).double())
        )
    torch.testing.assert_close(*grads, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize('zca', [True, False])
def test_wnn_by_the_algorithm_of_prong(zca):
    layer = built('wnn', zca=zca)
    weight, bias = (t.detach() for t in layer.canonical())
    samples, *_ = seen(layer, inputs(2), inputs(4))
    mean, cov = samples.mean(1), torch.cov(samples, correction=0)
    rewrite(layer, coordinates_of(layer, 'conv'))
    torch.testing.assert_close(layer.in_mean, mean)
    white = layer.in_matrix @ (samples - mean.unsqueeze(1))
    values = torch.linalg.eigvalsh(cov)
    left = torch.linalg.eigvalsh(torch.cov(white, correction=0))
    torch.testing.assert_close(left, values / (values + EPS))
    if zca:
        torch.testing.assert_close(layer.in_matrix, inverse_root(cov))
    solved = torch.linalg.solve(layer.in_matrix.T, weight.permute(2, 3, 1, 0))
    torch.testing.assert_close(layer.weight.detach(), solved.permute(3, 2, 0, 1))
    torch.testing.assert_close(layer.bias.detach(), bias + weight.sum((2, 3)) @ mean)


def test_post_gwnn_whitens_its_outputs_and_eigennet_their_gradients():
    for kind in ('post', 'eigen'):
        layer = built(kind)
        weight = layer.canonical()[0].detach()
        _, outputs, grads = seen(layer, inputs())
        cov = torch.cov(outputs, correction=0)
        if kind == 'eigen':
            cov = grads @ grads.T / grads.shape[1]
            cov = cov / (cov.trace() / len(cov))
        rewrite(layer, coordinates_of(layer, 'conv'))
        torch.testing.assert_close(layer.out_matrix, inverse_root(cov))
        whole = torch.einsum('po,ochw->pchw', layer.out_matrix, layer.weight)
        if kind == 'eigen':
            whole = torch.einsum('pchw,cd->pdhw', whole, layer.in_matrix)
        torch.testing.assert_close(whole.detach(), weight)


def test_a_linear_layer_of_three_axes():
    layer = WNNLinear(5, 4, eps=EPS).double()
    x = inputs().permute(0, 2, 3, 1)
    before = layer(x).detach()
    layer.sampling = True
    layer(x)
    layer.seen_in.gather()
    rewrite(layer, coordinates_of(layer, 'linear'))
    torch.testing.assert_close(layer(x), before, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(
        layer.in_matrix, inverse_root(torch.cov(x.flatten(0, 2).T, correction=0))
    )


@pytest.mark.parametrize('kind', ['pre', 'post', 'eigen'])
def test_truncation_is_the_projection_on_the_top_directions(kind):
    layer = built(kind, '1x1', rank=3)
    x = inputs()
    weight, bias = (t.detach() for t in layer.canonical())
    samples, outputs, _ = seen(layer, x)
    report = rewrite(layer, coordinates_of(layer, 'conv'))
    of = outputs if kind == 'post' else samples
    vectors = torch.linalg.eigh(torch.cov(of, correction=0))[1][:, -3:]
    project = vectors @ vectors.T
    mean = samples.mean(1)
    want = project @ weight[..., 0, 0] if kind == 'post' else weight[..., 0, 0] @ project
    torch.testing.assert_close(layer.canonical()[0][..., 0, 0].detach(), want)
    y = layer(x).transpose(0, 1).flatten(1).detach()
    torch.testing.assert_close(y.mean(1), outputs.mean(1))  # the mean does not move
    moved = (y - outputs).square().sum() / (outputs - outputs.mean(1, True)).square().sum()
    assert report.moved == pytest.approx(float(moved))
    assert (report.rank_out if kind == 'post' else report.rank_in) == 3
    torch.testing.assert_close(bias + weight[..., 0, 0] @ mean, outputs.mean(1))


@pytest.mark.parametrize('share', [0.5, 0.9, 0.999999])
def test_a_share_of_the_variance(share):
    layer = built('pre', rank=share)
    samples, *_ = seen(layer, inputs())
    report = rewrite(layer, coordinates_of(layer, 'conv'))
    values = torch.linalg.eigvalsh(torch.cov(samples, correction=0)).flip(0)
    shares = values.cumsum(0) / values.sum()
    assert (
        shares[report.rank_in - 1]
        >= share
        > torch.cat([torch.zeros(1), shares])[report.rank_in - 1]
    )
    assert int((layer.in_matrix.abs().sum(1) > 0).sum()) == report.rank_in


@all_convs
def test_momentum_is_carried_over_as_a_step(kind):
    """A step by the momentum changes the network as it would have before the rewriting."""
    layer = built(kind)
    seen(layer, inputs())
    rewrite(layer, coordinates_of(layer, 'conv'))
    for part in (layer.seen_in, layer.seen_out):
        if part is not None:
            part.forget()
    seen(layer, inputs())
    step = {name: torch.randn_like(p) for name, p in layer.named_parameters()}

    def moved():
        with torch.no_grad():
            after = dict(layer.named_parameters())
            old = {name: p.clone() for name, p in after.items()}
            for name, p in after.items():
                p += step[name]
            found = [t.clone() for t in layer.canonical()]
            for name, p in after.items():
                p.copy_(old[name])
        return found

    before = moved()
    rewrite(layer, coordinates_of(layer, 'conv'), [step])
    torch.testing.assert_close(moved(), before, rtol=1e-8, atol=1e-8)


def test_too_few_samples_and_nan_change_nothing():
    layer = built('wnn', '1x1')
    state = {key: value.clone() for key, value in layer.state_dict().items() if 'seen' not in key}
    seen(layer, inputs(1)[:, :, :2, :2])
    with pytest.raises(
        WhiteningError, match=r'backbone.conv: .* 5 channels .* there are 4: raise batches'
    ):
        coordinates_of(layer, 'backbone.conv')
    layer.seen_in.forget()
    x = inputs()
    x[1, 2, 0, 0] = torch.nan
    seen(layer, x)
    with pytest.raises(WhiteningError, match=r'backbone.conv: its inputs have NaN'):
        coordinates_of(layer, 'backbone.conv')
    now = {key: value for key, value in layer.state_dict().items() if 'seen' not in key}
    torch.testing.assert_close(now, state)


def test_a_gradient_that_overflowed_is_not_counted():
    layer = built('eigen')
    layer.sampling = True
    y = layer(inputs())
    y.backward(torch.full_like(y, torch.inf))
    layer.seen_out.gather()
    y = layer(inputs())
    y.backward(torch.zeros_like(y))
    layer.seen_out.gather()
    _, _, grads = seen(layer, inputs())
    assert int(layer.seen_out.count) == grads.shape[1]
    cov = grads @ grads.T
    torch.testing.assert_close(layer.seen_out.cov, cov * len(cov) / cov.trace())


def test_several_calls_an_iteration_are_all_counted_and_recomputation_is_not():
    layer = built('wnn')
    layer.sampling = True
    x = inputs().requires_grad_()
    layer(x)
    for reentrant in (True, False):
        y = torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=reentrant)
        y.sum().backward()
    layer.eval()(x)
    layer.seen_in.gather()
    assert int(layer.seen_in.count) == 3 * x[:, 0].numel()
    torch.testing.assert_close(
        layer.seen_in.cov, torch.cov(x.detach().transpose(0, 1).flatten(1), correction=0)
    )


def test_eigennet_refuses_activation_checkpointing():
    layer = built('eigen')
    layer.sampling = True
    x = inputs().requires_grad_()
    y = torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=True)
    with pytest.raises(RuntimeError, match='set with_cp=False'):
        y.sum().backward()


def test_a_plain_checkpoint_loads_as_the_canonical_weight():
    layer, plain = built('eigen', 'no bias'), nn.Conv2d(5, 6, (1, 3), padding=(0, 2), bias=False)
    seen(layer, inputs())
    rewrite(layer, coordinates_of(layer, 'conv'))
    layer.load_state_dict(plain.double().state_dict())
    x = inputs()
    torch.testing.assert_close(layer(x), plain(x))
    torch.testing.assert_close(layer.weight, plain.weight)


def test_an_empty_batch_is_no_sample():
    layer = built('eigen')
    layer.sampling = True
    layer(inputs()[:0].requires_grad_()).sum().backward()
    layer.seen_in.gather()
    assert int(layer.seen_in.count) == 0


def test_autocast_and_half_precision_inputs():
    layer = built('wnn').float()
    x = inputs().float()
    with torch.autocast('cpu', torch.bfloat16):
        layer.sampling = True
        y = layer(x.bfloat16())
    assert y.dtype == torch.bfloat16
    layer.seen_in.gather()
    torch.testing.assert_close(
        layer.seen_in.cov.double(),
        torch.cov(x.bfloat16().double().transpose(0, 1).flatten(1), correction=0),
        rtol=1e-5,
        atol=1e-5,
    )
    torch.testing.assert_close(y.float(), layer(x), rtol=0.05, atol=0.5)


@pytest.mark.parametrize(
    ('kind', 'options', 'message'),
    [
        (WNNConv, dict(eps=0), 'eps must be a number above 0'),
        (WNNConv, dict(groups=4), r"conv_cfg=dict\(type='WNNConv'\).* groups=4"),
        (PreGWNNConv, dict(rank=9), 'rank=9 must lie between 1 and the 8 input channels'),
        (PreGWNNConv, dict(rank=0), 'rank=0 must lie'),
        (PreGWNNConv, dict(rank=1.5), r'rank must be .* a float in \(0, 1\], got 1.5'),
        (PostGWNNConv, dict(rank=5), 'rank=5 must lie between 1 and the 4 output channels'),
        (EigenConv, dict(out_rank='all'), "out_rank must be .* got 'all'"),
    ],
)
def test_bad_arguments(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(8, 4, 3, **options)


@pytest.mark.parametrize('shape', SHAPES)
@all_convs
def test_a_plain_layer_computes_the_same(kind, shape):
    layer = built(kind, shape)
    seen(layer, inputs())
    rewrite(layer, coordinates_of(layer, 'conv'))
    model = nn.ModuleDict({'first': layer, 'shared': layer, 'other': nn.ReLU()})
    assert list(plain_layers(model)) == ['first']
    assert type(model['first']) is nn.Conv2d
    assert model['shared'] is model['first']
    x = inputs()
    torch.testing.assert_close(model['first'](x), layer(x))
    with torch.no_grad():
        linear = WNNLinear(5, 4)
        linear.in_mean.normal_()
        model = nn.Sequential(linear)
        plain_layers(model)
        torch.testing.assert_close(model(x[..., :5].float()), linear(x[..., :5].float()))


def test_constant_inputs_are_not_truncated():
    layer = built('pre', '1x1', rank=0.9)
    x = torch.ones(2, 5, 4, 4, dtype=torch.float64)
    before = layer(x).detach()
    seen(layer, x)
    report = rewrite(layer, coordinates_of(layer, 'conv'))
    assert (report.rank_in, report.moved) == (5, 0.0)
    torch.testing.assert_close(layer(x), before)


def test_the_state_of_another_layer_is_refused():
    state = built('wnn').state_dict()
    for other in (built('post'), built('eigen'), built('wnn', bias=False)):
        with pytest.raises(RuntimeError, match=r'checkpoint is that of another whitened layer'):
            other.load_state_dict(state, strict=False)


def test_the_bias_of_a_plain_layer_is_the_offset_of_one_without_bias():
    layer, plain = built('wnn', 'no bias'), nn.Conv2d(5, 6, (1, 3), padding=(0, 2)).double()
    layer.load_state_dict(plain.state_dict())
    x = inputs()
    torch.testing.assert_close(layer(x), plain(x))


def test_many_samples_of_a_half_precision_layer():
    layer = WNNConv(4, 2, 1).bfloat16().half()
    layer.sampling = True
    layer(torch.randn(2, 4, 300, 300).half())
    layer.seen_in.gather()
    assert int(layer.seen_in.count) == 180_000


def test_gradients_of_several_calls_are_pooled_before_they_are_scaled():
    layer = EigenConv(3, 2, 1, bias=False).double()
    layer.sampling = True
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    (1000 * layer(x)[:, 0].sum() + layer(x)[:, 1].sum()).backward()
    layer.seen_out.gather()
    wanted = torch.diag(torch.tensor([1e6, 1.0], dtype=torch.float64))
    torch.testing.assert_close(layer.seen_out.cov, wanted / wanted.trace() * 2)
