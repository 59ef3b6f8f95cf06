"""Every norm as plain operators: torch.export, both ONNX exporters, onnxruntime."""

import io
import warnings

import pytest
import torch
from torch import nn
from torch._dynamo.exc import Unsupported

from normplug.norms import SN, PortableSyncBN
from tests.cases import (
    CASES,
    TOLERANCE,
    all_cases,
    assert_same,
    built,
    case_of_each_type,
    random_input,
)

ANY = torch.export.Dim.DYNAMIC
TRACED = (2, 4, 6, 5)
OTHER_SHAPES = [(3, 4, 9, 7), (1, 4, 1, 2)]
_SCALED = ('sn_released', 'ssn_radius', 'ibn', 'kn')
_WHITENED = ('sw_5_released', 'iternorm', 'gw')
ONNX_CASES = [c for c in CASES if c.name in (*_SCALED, *_WHITENED)]
onnx_cases = pytest.mark.parametrize('case', ONNX_CASES, ids=lambda case: case.name)
both_modes = pytest.mark.parametrize('strict', [True, False], ids=['strict', 'non-strict'])


def exported(layer, x, strict=False):
    shapes = ({0: ANY, 2: ANY, 3: ANY},)
    return torch.export.export(layer, (x,), dynamic_shapes=shapes, strict=strict)


@both_modes
@case_of_each_type
def test_torch_export_of_plain_float32_operators_at_any_size(case, strict):
    layer = built(case, 4).eval()
    program = exported(layer, random_input(TRACED), strict)
    for shape in [TRACED, *OTHER_SHAPES]:
        x = random_input(shape, seed=3)
        got, want = {'y': program.module()(x)}, {'y': layer(x)}
        assert_same(got, want, TOLERANCE[torch.float32])
    for node in program.graph.nodes:
        assert not isinstance(node.target, torch._ops.HigherOrderOperator), node
        if isinstance(node.target, torch._ops.OpOverload):
            assert node.target.namespace == 'aten', node
        value = node.meta.get('val')
        if isinstance(value, torch.Tensor):
            assert value.dtype != torch.float64, node


@pytest.mark.parametrize('name', ['sn', 'sw', 'iternorm', 'gw'])
@pytest.mark.parametrize('axis', [2, 3])
def test_torch_export_with_one_named_size(name, axis):
    layer = built(next(case for case in CASES if case.name == name), 4).eval()
    named = ({axis: torch.export.Dim('size')},)
    program = torch.export.export(layer, (random_input(TRACED),), dynamic_shapes=named)
    x = random_input((2, 4, *(9 if at == axis else TRACED[at] for at in (2, 3))), seed=3)
    assert_same({'y': program.module()(x)}, {'y': layer(x)}, TOLERANCE[torch.float32])


@pytest.mark.parametrize('dtype', [torch.float16, torch.float64])
def test_other_dtypes_keep_theirs(dtype):
    layer = built(CASES[0], 4, dtype).eval()
    x = random_input(TRACED, dtype)
    y = exported(layer, x).module()(x)
    assert y.dtype == dtype
    assert_same({'y': y}, {'y': layer(x)}, TOLERANCE[dtype])


def test_far_from_zero():
    """Only the rounding of float32 means is lost, 2^-24 of |mean|/std a mean."""
    layer = built(CASES[0], 4).eval()
    x = random_input(TRACED) + 1000
    with torch.no_grad():  # the batch statistics that such an input has
        layer.running_mean += 1000
    y = exported(layer, x).module()(x)
    assert (y - layer(x)).abs().max() < 4 * 2**-24 * 1000 * layer(x).abs().max()


def run_onnx(data, x):
    onnxruntime = pytest.importorskip('onnxruntime')
    session = onnxruntime.InferenceSession(data, providers=['CPUExecutionProvider'])
    name = session.get_inputs()[0].name
    return torch.from_numpy(session.run(None, {name: x.numpy()})[0])


def assert_same_in_onnxruntime(data, layer):
    onnx = pytest.importorskip('onnx')
    graph = onnx.load_from_string(data).graph
    assert {node.domain for node in graph.node} == {''}
    casts = [a.i for node in graph.node if node.op_type == 'Cast' for a in node.attribute]
    stored = [tensor.data_type for tensor in graph.initializer]
    assert onnx.TensorProto.DOUBLE not in casts + stored
    for shape in [TRACED, *OTHER_SHAPES]:
        x = random_input(shape, seed=3)
        assert_same({'y': run_onnx(data, x)}, {'y': layer(x)}, TOLERANCE[torch.float32])


@onnx_cases
def test_onnx(case):
    pytest.importorskip('onnxscript')
    layer = built(case, 4).eval()
    program = torch.onnx.export(
        layer,
        (random_input(TRACED),),
        dynamo=True,
        dynamic_shapes=({0: ANY, 2: ANY, 3: ANY},),
        verbose=False,
    )
    assert_same_in_onnxruntime(program.model_proto.SerializeToString(), layer)


@onnx_cases
def test_onnx_by_tracing(case):
    pytest.importorskip('onnx')
    layer, file = built(case, 4).eval(), io.BytesIO()
    with warnings.catch_warnings():
        # That H·W − 1 is at least 1 is decided in tracing, of the released statistics.
        warnings.simplefilter('ignore')
        torch.onnx.export(
            layer,
            (random_input(TRACED),),
            file,
            dynamo=False,
            input_names=['x'],
            dynamic_axes={'x': {0: 'n', 2: 'h', 3: 'w'}},
        )
    assert_same_in_onnxruntime(file.getvalue(), layer)


@pytest.mark.filterwarnings('ignore')
@all_cases
def test_traced_at_any_size(case):
    layer = built(case, 4).eval()
    traced = torch.jit.trace(layer, random_input(TRACED))
    for shape in [TRACED, *OTHER_SHAPES]:
        x = random_input(shape, seed=3)
        assert_same({'y': traced(x)}, {'y': layer(x)}, TOLERANCE[torch.float32])


@case_of_each_type
def test_training_mode_is_refused(case):
    layer, x = built(case, 4).train(), random_input(TRACED)
    with pytest.raises(ValueError, match=r'training mode.*call model\.eval\(\)'):
        torch.export.export(layer, (x,))
    with pytest.raises(Unsupported, match=r'training mode.*call model\.eval\(\)'):
        torch.export.export(layer, (x,), strict=True)
    with pytest.raises(ValueError, match=r'training mode.*call model\.eval\(\)'):
        torch.jit.trace(layer, x)


def test_compiling_is_not_exporting():
    """Before an export and after it: neither takes the other's graph."""
    layer, x = built(CASES[0], 4), random_input(TRACED)
    torch.compiler.reset()
    compiled = torch.compile(layer, backend='eager', fullgraph=True)
    for _ in range(2):
        before = layer.train().num_batches_tracked.clone()
        compiled(x)
        assert layer.num_batches_tracked == before + 1
        assert_same({'y': compiled(x)}, {'y': layer(x)}, TOLERANCE[torch.float32])
        program = exported(layer.eval(), x, strict=True)
        assert torch.float64 not in {
            node.meta['val'].dtype
            for node in program.graph.nodes
            if isinstance(node.meta.get('val'), torch.Tensor)
        }


@pytest.mark.parametrize('build', [SN, PortableSyncBN])
def test_frozen_in_a_training_model_is_evaluation(build):
    layer, x = build(4, frozen=True).train(), random_input(TRACED)
    assert_same({'y': exported(layer, x).module()(x)}, {'y': layer(x)}, TOLERANCE[torch.float32])


def test_a_vector_input():
    layer, x = built(CASES[0], 5).eval(), random_input((4, 5))
    program = torch.export.export(nn.Sequential(layer), (x,), dynamic_shapes=({0: ANY},))
    x = random_input((7, 5), seed=3)
    assert_same({'y': program.module()(x)}, {'y': layer(x)}, TOLERANCE[torch.float32])
