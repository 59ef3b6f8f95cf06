"""Check results for every type, backend, dtype, layout, mode and class of sizes; odd memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product

import torch
from torch import Tensor

from normplug.bench.cases import DTYPES, LAYOUTS
from normplug.bench.compilation import empty_cache, forget_compiled
from normplug.register import NORMS

from .checks import Check, FailedError, Setting
from .comparison import LOCAL, Outcome, compare, expected, layer_of, run, tensors_of

__all__ = ['memory_checks', 'parity_checks', 'size_checks']

Shape = tuple[int, int, int, int]

_SHAPE = (2, 32, 20, 28)
_BOX_HEAD, _STEM = (512, 256, 7, 7), (2, 64, 200, 336)

# Each is run from the first to the last and the other way round, from no compiled code: what is
# made for the first size is right for the others, or is not used for them. Code differs below and
# above 64, 256, 2048 and 8192 pixels; a mean over one instance, or one pixel, is a case of its own.
_ORDERS: dict[str, Sequence[Shape]] = {
    'tiny': ((2, 16, 1, 1), (1, 16, 9, 9), (0, 16, 9, 9), (1, 16, 1, 1), (3, 15, 5, 3)),
    'near 64 pixels': ((2, 8, 7, 9), (2, 8, 8, 8), (2, 8, 5, 13)),
    'near 256 pixels': ((2, 8, 15, 17), (2, 8, 16, 16), (2, 8, 1, 257)),
    'near 2048 pixels': ((2, 8, 23, 89), (2, 8, 32, 64), (2, 8, 3, 683)),
    'near 8192 pixels': ((2, 3, 1, 8191), (2, 3, 64, 128), (2, 3, 3, 2731)),
    'box head, stem': (_BOX_HEAD, _STEM),
}


def parity_checks(setting: Setting) -> Iterator[Check]:
    """A check for each backend, dtype and type."""
    for backend, dtype, name in product(setting.backends, DTYPES, NORMS):
        call = partial(_parity, name, backend, dtype, setting.device)
        yield Check(f'{name}, {backend}, {dtype}', call)


def size_checks(setting: Setting) -> Iterator[Check]:
    """A check for each backend, set of sizes and type."""
    orders = dict(_ORDERS)
    if setting.quick:
        del orders['box head, stem']
    # Time may not suffice to compile for all: one type sees all sizes first.
    names = sorted(LOCAL, key=lambda name: name != 'SN')
    for backend, name, (sizes, shapes) in product(setting.backends, names, orders.items()):
        call = partial(_sizes, name, backend, shapes, setting.device)
        yield Check(f'{name}, {backend}, {sizes}', call)


def memory_checks(setting: Setting) -> Iterator[Check]:
    """A check for each backend, kind of memory and type."""
    for backend, kind, name in product(setting.backends, _MEMORY, LOCAL):
        call = partial(_memory, name, backend, _MEMORY[kind], setting.device)
        yield Check(f'{name}, {backend}, {kind}', call)


def _parity(name: str, backend: str, dtype: str, device: str) -> str:
    shares, wrong = [], []
    for layout, training in product(LAYOUTS, (True, False)):
        layer = layer_of(name, _SHAPE[1], backend, device)
        x, dy = tensors_of(_SHAPE, dtype, layout, device)
        want = expected(layer, x, dy, training)
        try:
            shares.append(compare(run(layer, x, dy, training), want, x, dtype))
        except FailedError as error:
            wrong.append(f'{layout}, {"training" if training else "evaluation"}: {error}')
    if wrong:
        raise FailedError('; '.join(wrong))
    return _told(max(shares))


def _sizes(name: str, backend: str, shapes: Sequence[Shape], device: str) -> str:
    cases: list[tuple[Tensor, Tensor, Outcome]] = []
    for shape in shapes:
        x, dy = tensors_of(shape, 'float32', 'contiguous', device)
        cases.append((x, dy, expected(layer_of(name, shape[1], backend, device), x, dy, True)))
    shares = []
    for order in (cases, cases[::-1]) if backend != 'eager' else (cases,):
        forget_compiled()
        with empty_cache():  # whose files may be code that was made for another size
            for x, dy, want in order:
                layer = layer_of(name, x.shape[1], backend, device)
                try:
                    shares.append(compare(run(layer, x, dy, True), want, x, 'float32'))
                except FailedError as error:
                    first = 'x'.join(map(str, order[0][0].shape))
                    here = 'x'.join(map(str, x.shape))
                    raise FailedError(f'{here} after {first}: {error}') from error
    return _told(max(shares))


def _memory(name: str, backend: str, make: Callable[[str], list[Tensor]], device: str) -> str:
    x, dy = make(device)
    layer = layer_of(name, x.shape[1], backend, device)
    want = expected(layer, x, dy, True)
    # Code made for ordinary memory first.
    run(layer_of(name, x.shape[1], backend, device), x.contiguous(), dy.contiguous(), True)
    return _told(compare(run(layer, x, dy, True), want, x, 'float32'))


def _odd_start(device: str) -> list[Tensor]:
    return [_shifted(t) for t in tensors_of((2, 8, 16, 16), 'float32', 'contiguous', device)]


def _shifted(tensor: Tensor) -> Tensor:
    """Return the values at an address that is not a multiple of 16 bytes."""
    storage = torch.empty(tensor.numel() + 1, dtype=tensor.dtype, device=tensor.device)
    return storage[1:].view(tensor.shape).copy_(tensor)


def _crop(device: str) -> list[Tensor]:
    return [t[..., 1:-2, 3:] for t in tensors_of((2, 8, 19, 21), 'float32', 'contiguous', device)]


def _expanded(device: str) -> list[Tensor]:
    x, dy = tensors_of((2, 8, 16, 16), 'float32', 'contiguous', device)
    return [x, dy[..., :1, :1].expand_as(x)]


_MEMORY = {
    'x from an odd element on': _odd_start,
    'a crop': _crop,
    'an expanded gradient': _expanded,
}


def _told(share: float) -> str:
    return f'largest error {share:.1%} of what is allowed'
