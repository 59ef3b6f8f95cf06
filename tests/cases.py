"""The one list of normalizers and inputs that every contract test runs over."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from normplug.kalman import link_kalman
from normplug.norms import (
    BCN,
    BIN,
    BRN,
    CBN,
    EBN,
    FRN,
    GW,
    IBN,
    KN,
    MABN,
    PN,
    SN,
    SSN,
    SW,
    EstBCN,
    GhostBN,
    IterNorm,
    PortableSyncBN,
    SyncBCN,
    SyncBRN,
    SyncEBN,
    SyncIBN,
    SyncIterNorm,
    SyncKN,
    SyncPN,
    SyncSN,
    SyncSSN,
    SyncSW,
)

# Largest |error| / max|reference| per dtype. A sum of n terms errs by about sqrt(n) roundings;
# the shapes below have n < 1e3, and the half types round once more, at the output.
TOLERANCE = {
    torch.float64: 1e-12,
    torch.float32: 2e-5,
    torch.bfloat16: 2**-7,
    torch.float16: 2**-10,
}


@dataclass(frozen=True)
class Case:
    """A normalizer with its options, built for a number of channels."""

    name: str
    build: Callable[[int], nn.Module]


# What an SSN has decided, the bounds of a BRN and the speed of an EstBCN are no random numbers.
FIXED_STATE = ('radius', 'mean_choice', 'var_choice', 'r_max', 'd_max', 'speed')


def ssn(channels: int, radius: float = 0.0, **choices: list[float]) -> SSN:
    """An SSN in the middle of its training."""
    layer = SSN(channels)
    layer.radius.fill_(radius)
    for name, choice in choices.items():
        getattr(layer, name).copy_(torch.tensor(choice))
    return layer


def linked(channels: int, kind: type[KN | CBN] = KN, **options) -> KN | CBN:
    """A KN that is linked, as the first of its chain, or a CBN, with no convolution before it."""
    layer = kind(channels, **options)
    link_kalman(layer, lambda: layer(torch.zeros(1, channels, 2)))
    return layer


def fixed_numbers(layer: PN, x: Tensor) -> tuple[Tensor, ...]:
    """In place of random numbers, the same at each call, as a test of derivatives needs."""
    numbers = torch.linspace(-1.5, 1, layer.num_features, device=x.device)
    return numbers, numbers.flip(0), layer.kurtosis.clone()


def drawn_pn(channels: int, kind: type[PN] = PN) -> PN:
    """A PN after its warm-up, with drawn noise of numbers that are not random."""
    layer = kind(channels, noise='both', samples=8, warmup=0)
    layer.drawn = partial(fixed_numbers, layer)
    return layer


def pairs(channels: int) -> int:
    """A size of blocks of channels: more than one block, where the channels allow it."""
    return 2 if channels % 2 == 0 else channels


CASES = [
    Case('sn', SN),
    Case('sn_no_bn', lambda c: SN(c, using_bn=False)),
    Case('sn_no_in', lambda c: SN(c, using_in=False)),
    Case('sn_released', lambda c: SN(c, released_statistics=True)),
    Case('ssn', SSN),
    Case('ssn_radius', lambda c: ssn(c, 0.5)),
    Case('ssn_decided', lambda c: ssn(c, 0.9, mean_choice=[0, 0, 1], var_choice=[1, 0, 0])),
    Case('ssn_no_bn', lambda c: SSN(c, using_bn=False)),
    Case('ibn', IBN),
    Case('ibn_quarter', lambda c: IBN(c, ratio=0.25)),
    Case('ibn_all_in', lambda c: IBN(c, ratio=1)),
    Case('ibn_no_in', lambda c: IBN(c, ratio=0)),
    Case('ghost_bn', GhostBN),
    Case('kn', linked),
    Case('kn_learned', lambda c: linked(c, gain='learned', transition='linear')),
    Case('pn', PN),  # which warms up here
    Case('pn_population', lambda c: PN(c, warmup=0)),
    Case('pn_mean', lambda c: PN(c, noise='mean', warmup=0, limit=float('inf'))),
    Case('pn_var', lambda c: PN(c, noise='var', warmup=0)),
    Case('pn_both', lambda c: PN(c, noise='both')),
    Case('pn_drawn', drawn_pn),
    Case('brn', lambda c: BRN(c, r_max=3, d_max=5)),
    Case('bin', BIN),
    Case('cbn', lambda c: linked(c, CBN)),  # tests/norms/test_cbn.py has it behind convolutions
    Case('bcn', lambda c: BCN(c, num_groups=pairs(c))),
    Case('est_bcn', lambda c: EstBCN(c, num_groups=pairs(c), speed=0.3)),
    Case('ebn', EBN),
    Case('mabn', MABN),  # which warms up here
    Case('frn', FRN),
    Case('frn_learned', lambda c: FRN(c, learned_eps=True)),
    Case('sw', lambda c: SW(c, num_pergroup=pairs(c))),
    Case('sw_3_tied', lambda c: SW(c, sw_type=3, tie_weight=True)),
    Case('sw_5', lambda c: SW(c, num_pergroup=pairs(c), sw_type=5)),
    Case('sw_5_released', lambda c: SW(c, num_pergroup=pairs(c), sw_type=5, released=True)),
    Case('iternorm', lambda c: IterNorm(c, num_channels=pairs(c))),
    Case('gw', lambda c: GW(c, num_groups=pairs(c))),
    # In one process: local statistics. tests/dist has them over ranks.
    Case('sync_sn', SyncSN),
    Case('sync_ssn', SyncSSN),
    Case('sync_ibn', SyncIBN),
    Case('sync_kn', lambda c: linked(c, SyncKN)),
    Case('sync_pn', lambda c: SyncPN(c, warmup=0)),
    Case('sync_pn_drawn', lambda c: drawn_pn(c, SyncPN)),
    Case('sync_brn', lambda c: SyncBRN(c, r_max=1.001, d_max=0.001)),  # all is clipped here
    Case('sync_bcn', lambda c: SyncBCN(c, num_groups=pairs(c))),
    Case('sync_ebn', SyncEBN),
    Case('sync_sw', lambda c: SyncSW(c, num_pergroup=pairs(c))),
    Case('sync_iternorm', lambda c: SyncIterNorm(c, num_channels=pairs(c))),
    Case('portable_sync_bn', PortableSyncBN),
]

# (N, C, *spatial): 0 to 3 spatial axes, odd sizes, one image, one pixel, one channel.
SHAPES = [
    (4, 5),
    (3, 6, 7),
    (2, 5, 3, 4),
    (1, 4, 5, 3),
    (3, 4, 1, 1),
    (2, 1, 5, 7),
    (2, 3, 3, 2, 5),
]

all_cases = pytest.mark.parametrize('case', CASES, ids=lambda case: case.name)
# The first case of each class, where a case takes seconds and its options take the same way.
OF_EACH_TYPE = list({type(case.build(4)): case for case in reversed(CASES)}.values())[::-1]
case_of_each_type = pytest.mark.parametrize('case', OF_EACH_TYPE, ids=lambda case: case.name)
all_shapes = pytest.mark.parametrize('shape', SHAPES, ids=lambda s: 'x'.join(map(str, s)))


def built(case: Case, channels: int, dtype: torch.dtype = torch.float32, seed: int = 0):
    """The case's layer with random parameters and running statistics."""
    layer = case.build(channels).to(dtype)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in layer.state_dict().items():
            if tensor.is_floating_point() and name not in FIXED_STATE:
                noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
                tensor.copy_(_SPREADS[name](noise) if name in _SPREADS else noise)
    return layer


# What is a variance, or a covariance, of noise.
_SPREADS = {
    'running_var': lambda noise: 1 + 0.5 * noise.tanh(),
    'square_window': lambda noise: 1 + 0.5 * noise.tanh(),
    'kurtosis': lambda noise: noise.tanh(),
    'running_cov': lambda noise: torch.eye(len(noise[0])) + noise @ noise.mT / len(noise[0]),
}


def random_input(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 1):
    """Standard normal values, shifted and scaled by channel."""
    generator = torch.Generator().manual_seed(seed)
    axes = (1, shape[1]) + (1,) * (len(shape) - 2)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    gain = torch.rand(axes, generator=generator, dtype=torch.float64) + 0.5
    return (x * gain + torch.randn(axes, generator=generator, dtype=torch.float64)).to(dtype)


def run(layer: nn.Module, x: Tensor, dy: Tensor) -> dict[str, Tensor]:
    """Output, gradients of x and of every parameter, and buffers after the forward."""
    layer.zero_grad()
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    y = layer(x)
    y.backward(dy)
    grads = {f'grad.{name}': p.grad for name, p in layer.named_parameters()}
    return {'y': y.detach(), 'dx': x.grad, **grads, **dict(layer.named_buffers())}


def by_formula(
    layer: nn.Module, formula: Callable[[nn.Module, Tensor], Tensor], x: Tensor, dy: Tensor
) -> dict[str, Tensor]:
    """What :func:`run` finds, but for buffers, of ``formula(layer, x)`` in plain torch."""
    leaf = x.clone().requires_grad_()
    y = formula(layer, leaf)
    names, params = zip(*layer.named_parameters(), strict=True)
    dx, *grads = torch.autograd.grad(y, (leaf, *params), dy)
    named = {f'grad.{name}': g for name, g in zip(names, grads, strict=True)}
    return {'y': y.detach(), 'dx': dx, **named}


def assert_same(actual: dict, expected: dict, tolerance: float, **magnitude: float) -> None:
    """Every tensor of ``expected`` is met, relative to its own largest magnitude.

    ``magnitude`` names, for a tensor, the size of the terms that it is a difference of.
    """
    assert actual.keys() == expected.keys()
    for name, want in expected.items():
        got = actual[name].double()
        floor = magnitude.get(name, 1)
        scale = want.double().abs().max().clamp(min=floor).item() if want.numel() else 1
        assert got.shape == want.shape, name
        error = (got - want.double()).abs().max().item() if want.numel() else 0
        assert error <= tolerance * scale, f'{name}: |error| {error:.2e} of {scale:.2e}'
