"""Export a trained model to ONNX and compare it with the model in onnxruntime."""

from __future__ import annotations

import warnings
from importlib.util import find_spec

import torch
from mmengine.config import Config
from torch import Tensor, nn

from normplug.errors import UserError
from normplug.files import write
from normplug.preflight.config_types import package_of

from .constant_ratios import with_constant_ratios
from .network import largest_difference, scores_of_clips

__all__ = ['TOLERANCE', 'ExportedNetwork', 'check_installed', 'export_onnx']

TOLERANCE = 1e-4  # of the largest output: float32 statistics, and other kernels in the runtime
_NEEDED = ('onnx', 'onnxruntime', 'onnxscript')


class ExportedNetwork(nn.Module):
    """The part of a model that is exported: without data preprocessor and post-processing.

    For a detector it is backbone and neck, with (N, C, H, W) features by level; for a segmentor the
    logits (N, classes, H, W); for a classifier and a 3D recognizer the logits (N, classes).
    """

    def __init__(self, model: nn.Module, package: str) -> None:
        super().__init__()
        self.model, self.package = model, package

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Run on a normalized image, (N, C, H, W), or a clip, (N, C, T, H, W)."""
        if self.package == 'mmdet':
            return tuple(self.model.extract_feat(image))
        if self.package == 'mmseg':
            size = (image.shape[2], image.shape[3])
            return self.model.encode_decode(image, [dict(img_shape=size)])
        if self.package == 'mmaction':
            return scores_of_clips(self.model, image)
        return self.model(image, mode='tensor')


def check_installed() -> None:
    """Raise UserError if a package that the export needs is not installed."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise UserError(
            f'{", ".join(missing)} not installed: pip install {" ".join(missing)} '
            "(or pip install 'normplug[export]')"
        )


def export_onnx(
    cfg: Config, model: nn.Module, out: str, shape: tuple[int, ...], fixed: bool
) -> float:
    """Write the network of ``model`` to ``out``, after comparing onnxruntime with it.

    Args:
        cfg: the model's config.
        model: in evaluation mode.
        out: the file; all weights are in it.
        shape: an input's (N, C, H, W), or (N, C, T, H, W), to check on.
        fixed: take inputs of this shape only, instead of any N, T, H and W.

    Returns:
        The largest difference from torch, of the largest output, on ``shape`` and, unless
        ``fixed``, on a larger one.

    Raises:
        UserError: the model is in training mode, has no ONNX graph, or onnxruntime's outputs differ
            by more than TOLERANCE. Nothing has been written then.
    """
    if model.training:
        raise UserError('the model is in training mode: call model.eval() before exporting it')
    network = ExportedNetwork(model, package_of(cfg)).eval()
    data = _graph(with_constant_ratios(network), shape, fixed)
    n, c, *time, h, w = shape
    shapes = [shape] if fixed else [shape, (n + 1, c, *(t + 8 for t in time), h + 32, w + 64)]
    differences = [_check(network, data, s) for s in shapes]
    difference = max(differences)
    if not difference <= TOLERANCE:
        # Adaptive pooling to more than one bin has no graph for any size.
        hint = ''
        if not fixed and differences[0] <= TOLERANCE:
            hint = f'. At {tuple(shape)} they agree: with --fixed-shape the model can be exported'
        raise UserError(
            f'the outputs of onnxruntime differ by {difference:.1e} of the largest (allowed: '
            f'{TOLERANCE:.0e}); nothing was written{hint}'
        )
    write(out, data, 'OUT.onnx')
    return difference


@torch.no_grad()
def _graph(network: nn.Module, shape: tuple[int, ...], fixed: bool) -> bytes:
    any_size = torch.export.Dim.DYNAMIC
    free = dict.fromkeys((0, *range(2, len(shape))), any_size)
    axes = None if fixed else {'image': free}
    if not fixed:
        shape = (max(shape[0], 2), *shape[1:])  # an axis of size 1 would be taken for a constant
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of the exporter about itself
            program = torch.onnx.export(
                network,
                (torch.zeros(shape),),
                input_names=['image'],
                dynamic_shapes=axes,
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        hint = 'the model may be able to with --fixed-shape' if not fixed else 'see the cause'
        cause = str(error.__cause__ or error).strip().splitlines()[0]
        raise UserError(f'the model cannot be exported ({hint}): {cause}') from error
    return program.model_proto.SerializeToString()


@torch.no_grad()
def _check(network: nn.Module, data: bytes, shape: tuple[int, ...]) -> float:
    import onnxruntime

    image = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    session = onnxruntime.InferenceSession(data, providers=['CPUExecutionProvider'])
    got = session.run(None, {'image': image.numpy()})
    want = network(image)
    want = [want] if isinstance(want, Tensor) else list(want)
    return largest_difference([torch.from_numpy(y) for y in got], want)
