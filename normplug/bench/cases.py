"""The inputs for measuring layers: shapes, dtypes, memory layouts."""

from dataclasses import dataclass

import torch
from torch import Tensor

from normplug.errors import UserError

__all__ = ['DTYPES', 'LAYOUTS', 'QUICK', 'R50_FPN', 'Case', 'parse_shape']

# Inputs of the norms of Mask R-CNN R50-FPN, 2 images of 800×1333 padded to 800×1344; and tiny maps.
R50_FPN = {
    'stem': (2, 64, 400, 672),
    'stage 1': (2, 64, 200, 336),
    'stage 1 out, FPN P2': (2, 256, 200, 336),
    'stage 2': (2, 128, 100, 168),
    'FPN P3': (2, 256, 100, 168),
    'stage 2 out': (2, 512, 100, 168),
    'stage 3, FPN P4': (2, 256, 50, 84),
    'stage 3 out': (2, 1024, 50, 84),
    'FPN P5': (2, 256, 25, 42),
    'stage 4': (2, 512, 25, 42),
    'stage 4 out': (2, 2048, 25, 42),
    'box head': (512, 256, 7, 7),
    'tiny 4x4': (2, 64, 4, 4),
    'tiny 1x1': (2, 64, 1, 1),
}
QUICK = ('stem', 'stage 2 out', 'stage 4 out', 'box head', 'tiny 4x4')

DTYPES = {name: getattr(torch, name) for name in ('float32', 'bfloat16', 'float16')}
LAYOUTS = {'contiguous': torch.contiguous_format, 'channels_last': torch.channels_last}


@dataclass(frozen=True)
class Case:
    """One input: ``shape`` is (N, C, H, W), ``dtype`` and ``layout`` are keys of the tables."""

    name: str
    shape: tuple[int, int, int, int]
    dtype: str
    layout: str
    device: str

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Random x, which requires grad, and an upstream gradient; the same at each call."""
        generator = torch.Generator(self.device).manual_seed(0)
        x, dy = (torch.randn(self.shape, generator=generator, device=self.device) for _ in range(2))
        form = {'dtype': DTYPES[self.dtype], 'memory_format': LAYOUTS[self.layout]}
        return x.mul_(1.5).add_(0.5).to(**form).requires_grad_(), dy.to(**form)

    @property
    def size(self) -> int:
        """Bytes of x."""
        n, c, h, w = self.shape
        return n * c * h * w * DTYPES[self.dtype].itemsize

    def __str__(self) -> str:
        """Return shape, dtype and layout for messages."""
        return f'{"x".join(map(str, self.shape))} {self.dtype} {self.layout}'


def parse_shape(text: str) -> tuple[int, int, int, int]:
    """``'2,64,56,56'`` → (2, 64, 56, 56).

    Raises:
        UserError: a batch norm cannot train on such a shape.
    """
    try:
        shape = tuple(int(size) for size in text.split(','))
    except ValueError:
        shape = ()
    if len(shape) != 4 or min(shape) < 1:
        raise UserError(f'--shapes {text}: a shape is four positive integers N,C,H,W')
    if shape[0] * shape[2] * shape[3] == 1:
        raise UserError(f'--shapes {text}: nn.BatchNorm2d cannot train on one value per channel')
    return shape
