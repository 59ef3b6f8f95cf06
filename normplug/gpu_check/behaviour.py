"""Check layers with streams, CUDA graphs, AMP, torch.compile and activation checkpointing."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from .checks import Check, FailedError, Setting
from .comparison import LOCAL, compare, expected, layer_of, norm_of, run, tensors_of

__all__ = ['behaviour_checks']

_SHAPE = (2, 32, 20, 28)
_REPLAYS = 2
_SLEEP = 50_000_000  # cycles, some 30 ms: longer than it takes to queue a step
# By design, KN's states pass between layers outside of any graph, and are gone when a
# checkpointed block runs again; CBN's past is outside too, takes no part in a captured graph, and
# gets an overflowed step as one that does not count.
_WITHOUT_STATES = [name for name in LOCAL if name != 'KN']
_WITHOUT_PAST = [name for name in LOCAL if name != 'CBN']
_IN_ONE_GRAPH = [name for name in LOCAL if name not in ('KN', 'CBN')]


def behaviour_checks(setting: Setting) -> Iterator[Check]:
    """A check for each situation, backend and type."""
    situations = {
        'another stream': (_another_stream, 1, LOCAL),
        'the second GPU': (_second_gpu, 2, LOCAL),
        'captured in a CUDA graph': (_captured, 1, _WITHOUT_PAST),
        'autocast, an overflow': (partial(_overflow, setting.device), 0, _WITHOUT_PAST),
        'checkpointed': (partial(_checkpointed, setting.device), 0, _WITHOUT_STATES),
        'twice the same bits': (partial(_repeated, setting.device), 0, LOCAL),
    }
    for situation, (call, gpus, names) in situations.items():
        for backend in setting.backends:
            for name in names:
                told = f'{name}, {backend}, {situation}'
                yield Check(told, partial(call, name, backend), gpus)
    if 'compiled' in setting.backends:
        for name in _IN_ONE_GRAPH:
            call = partial(_whole_graph, name, setting.device)
            yield Check(f'{name}, torch.compile(fullgraph=True)', call)


def _another_stream(name: str, backend: str) -> str:
    layer = layer_of(name, _SHAPE[1], backend, 'cuda')
    x, dy = tensors_of(_SHAPE, 'float32', 'contiguous', 'cuda')
    want = expected(layer, x, dy, True)
    run(layer_of(name, _SHAPE[1], backend, 'cuda'), x, dy, True)  # what is compiled, is now
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        late = torch.zeros_like(x)
        torch.cuda._sleep(_SLEEP)
        late.copy_(x)  # whoever does not wait for it reads zeros
        got = run(layer, late, dy, True)
    stream.synchronize()
    compare(got, want, x, 'float32')
    return 'waits for its stream'


def _second_gpu(name: str, backend: str) -> str:
    device = 'cuda:1'
    with torch.cuda.device(0):
        layer = layer_of(name, _SHAPE[1], backend, device)
        x, dy = tensors_of(_SHAPE, 'float32', 'contiguous', device)
        want = expected(layer, x, dy, True)
        got = run(layer, x, dy, True)
        torch.cuda.synchronize(1)
    where = got.tensors['the output'].device
    if where != x.device:
        raise FailedError(f'the output is on {where}')
    compare(got, want, x, 'float32')
    return 'while the first is current'


def _captured(name: str, backend: str) -> str:
    layer = layer_of(name, _SHAPE[1], backend, 'cuda')
    x, dy = tensors_of(_SHAPE, 'float32', 'contiguous', 'cuda')
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # as torch asks for: some steps before, on another stream
        for _ in range(3):
            run(layer, x, dy, True)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = run(layer, x, dy, True)
    for _ in range(_REPLAYS):
        x.mul_(-0.5).add_(1)
        want = expected(layer, x, dy, True)  # from where the running statistics stand
        graph.replay()
        torch.cuda.synchronize()
        compare(got, want, x, 'float32')
    return f'{_REPLAYS} replays, with statistics that move'


def _overflow(device: str, name: str, backend: str) -> str:
    torch.manual_seed(0)
    layer = layer_of(name, 8, backend, device)
    convolutions = [nn.Conv2d(3, 8, 3).to(device), nn.Conv2d(8, 4, 3).to(device)]
    model = nn.Sequential(convolutions[0], layer, nn.ReLU(), convolutions[1])
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler(device, init_scale=2.0**8)
    images = torch.randn(2, 3, 12, 12, device=device)

    def step(factor: float) -> dict[str, torch.Tensor]:
        optimizer.zero_grad()
        dtype = torch.float16 if device == 'cuda' else torch.bfloat16
        with torch.autocast(device, dtype=dtype):
            loss = model(images * factor).float().square().mean()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        state = model.state_dict()
        spoiled = [key for key, value in state.items() if not torch.isfinite(value).all()]
        if spoiled:
            raise FailedError(f'{spoiled[0]} is not finite after a step on images of {factor:g}')
        return {key: value.clone() for key, value in state.items()}

    first = step(1.0)
    second = step(float('inf'))  # in the activations, hence in the loss and all gradients
    moved = [key for key in first if not torch.equal(first[key], second[key])]
    if moved:
        raise FailedError(f'{moved[0]} moved in a step that overflowed')
    if scaler.get_scale() != 2.0**7:
        raise FailedError(f'the scale is {scaler.get_scale():g} after a step that overflowed')
    third = step(1.0)
    counted = all(
        third[key] == second[key] + 1 for key in third if key.endswith('num_batches_tracked')
    )
    if not counted or torch.equal(third['0.weight'], second['0.weight']):
        raise FailedError('nothing moves after a step that overflowed')
    return 'the step is skipped, statistics stay finite'


def _checkpointed(device: str, name: str, backend: str) -> str:
    x, dy = tensors_of(_SHAPE, 'float32', 'contiguous', device)
    for reentrant in (False, True):
        layer = layer_of(name, _SHAPE[1], backend, device)
        want = expected(layer, x, dy, True)
        call = partial(checkpoint, layer, use_reentrant=reentrant)
        got = run(layer, x, dy, True, call, by_backward=True)
        try:
            compare(got, want, x, 'float32')
        except FailedError as error:
            raise FailedError(f'use_reentrant={reentrant}: {error}') from error
    return 'the same gradients, statistics move once'


def _repeated(device: str, name: str, backend: str) -> str:
    x, dy = tensors_of(_SHAPE, 'float32', 'contiguous', device)
    twice = [run(layer_of(name, _SHAPE[1], backend, device), x, dy, True) for _ in range(2)]
    first, second = (result.tensors | result.running for result in twice)
    differ = [key for key, value in first.items() if not torch.equal(value, second[key])]
    if differ:
        raise FailedError(f'{", ".join(differ)}: not the same twice')
    return 'yes'


def _whole_graph(name: str, device: str) -> str:
    x, dy = tensors_of(_SHAPE, 'float32', 'contiguous', device)
    # SiLU: ReLU's gradient jumps where two ways to compute differ in the last digit.
    models = [
        nn.Sequential(*(layer_of(name, _SHAPE[1], 'eager', device) for _ in range(2)))
        for _ in range(2)
    ]
    for model in models:
        model.insert(1, nn.SiLU())
    want = run(models[0], x, dy, True)
    torch.compiler.reset()
    share = compare(
        run(models[1], x, dy, True, torch.compile(models[1], fullgraph=True)), want, x, 'float32'
    )
    norm = norm_of(models[1][2])
    if norm.batch_from is not None and norm.num_batches_tracked != 1:
        raise FailedError(f'{int(norm.num_batches_tracked)} batches are tracked after one')
    return f'as uncompiled; largest error {share:.1%} of what is allowed'
