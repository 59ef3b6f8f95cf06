"""The whitened convolutions and the linear layer: see :mod:`normplug.whitened.base`."""

from __future__ import annotations

import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor, nn

from normplug.whitened.base import WhitenedLayer, require

__all__ = ['EigenConv', 'PostGWNNConv', 'PreGWNNConv', 'WNNConv', 'WNNLinear']


class _WhitenedConv(WhitenedLayer):
    _channel_axis = 1

    def _check(self, groups: int) -> None:
        require(
            groups == 1,
            f"conv_cfg=dict(type='{type(self).__name__}') whitens all input channels together, but "
            f'this convolution has groups={groups}: use another conv_cfg for the layers with '
            'groups',
        )

    def _apply_weight(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return self._conv_forward(x, weight, bias)


@MODELS.register_module()
class WNNConv(_WhitenedConv, nn.Conv2d):
    """``nn.Conv2d`` on whitened inputs (WNN, PRONG); for ``conv_cfg``.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
            padding_mode: as in ``nn.Conv2d``; ``groups`` must be 1.
        eps: added to the eigenvalues of the covariance.
        zca: B is symmetric, Q Λ^(−1/2) Qᵀ, so that coordinates move little from one rewriting to
            the next; otherwise Λ^(−1/2) Qᵀ.

    Raises:
        ValueError: ``groups`` is not 1, or ``eps`` not above 0.
    """

    def __init__(self, *args, eps: float = 0.1, zca: bool = True, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._check(self.groups)
        self.symmetric = zca
        self._whiten(eps)


@MODELS.register_module()
class WNNLinear(WhitenedLayer, nn.Linear):
    """``nn.Linear`` on whitened inputs; other arguments as :class:`WNNConv`.

    Inputs are (..., C); all axes but the last are samples.
    """

    _channel_axis = -1

    def __init__(self, *args, eps: float = 0.1, zca: bool = True, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.symmetric = zca
        self._whiten(eps)

    def _apply_weight(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.linear(x, weight, bias)


@MODELS.register_module()
class PreGWNNConv(_WhitenedConv, nn.Conv2d):
    """``nn.Conv2d`` on the top d' whitened directions of its inputs (pre-GWNN); for ``conv_cfg``.

    V keeps its shape (O, C, kh, kw), so that checkpoints and optimizers keep theirs; what
    multiplies the C − d' other directions is zero. Until the first rewriting none is truncated.

    Args:
        rank: d' as an integer; or as a float in (0, 1] the least share of the variance to keep.
        eps: see :class:`WNNConv`, and there the other arguments.

    Raises:
        ValueError: ``rank`` is out of range, or more than C; see also :class:`WNNConv`.
    """

    def __init__(self, *args, rank: float = 0.99, eps: float = 0.1, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._check(self.groups)
        self.in_rank = _checked_rank('rank', rank, self.in_channels, 'input')
        self._whiten(eps)


@MODELS.register_module()
class PostGWNNConv(_WhitenedConv, nn.Conv2d):
    """``nn.Conv2d`` whose outputs are written in whitened coordinates (post-GWNN).

    A is the symmetric root Q Λ^(−1/2) Qᵀ of the outputs' covariance, of its top d' eigenpairs: our
    reading, so that channels keep their meaning for the batch norm behind.

    Args:
        rank: d' of the outputs, see :class:`PreGWNNConv`.
        eps: see :class:`WNNConv`, and there the other arguments.

    Raises:
        ValueError: ``rank`` is out of range, or more than O; see also :class:`WNNConv`.
    """

    of_inputs = False
    of_outputs = 'values'

    def __init__(self, *args, rank: float = 1.0, eps: float = 0.1, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._check(self.groups)
        self.out_rank = _checked_rank('rank', rank, self.out_channels, 'output')
        self._whiten(eps)


@MODELS.register_module()
class EigenConv(_WhitenedConv, nn.Conv2d):
    """``nn.Conv2d`` whitened on both sides (EigenNet); for ``conv_cfg``.

    Args:
        rank: of the inputs, see :class:`PreGWNNConv`.
        out_rank: the same of the gradients of the outputs.
        eps: see :class:`WNNConv`; of gradients, relative to their mean eigenvalue.

    Raises:
        ValueError: a rank is out of range, or more than C or O; see also :class:`WNNConv`.
    """

    of_outputs = 'gradients'

    def __init__(
        self, *args, rank: float = 1.0, out_rank: float = 1.0, eps: float = 0.1, **kwargs
    ) -> None:
        super().__init__(*args, **kwargs)
        self._check(self.groups)
        self.in_rank = _checked_rank('rank', rank, self.in_channels, 'input')
        self.out_rank = _checked_rank('out_rank', out_rank, self.out_channels, 'output')
        self._whiten(eps)


def _checked_rank(key: str, rank: float, channels: int, kind: str) -> float | None:
    if type(rank) is int:
        require(
            1 <= rank <= channels,
            f'{key}={rank} must lie between 1 and the {channels} {kind} channels of the layer: a '
            f'share of the variance, such as {key}=0.99, suits layers of any width',
        )
    else:
        require(
            isinstance(rank, float) and 0 < rank <= 1,
            f'{key} must be a number of eigenvectors, an integer, or a share of the variance, a '
            f'float in (0, 1], got {rank!r}',
        )
    return None if rank == 1.0 and type(rank) is float else rank
