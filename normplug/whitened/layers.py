"""Convolutions and linear layers whose weight is written in whitened coordinates.

W = A V B with V the parameter, and A (of the outputs) and B (of the inputs) constants, which
:func:`normplug.whitened.rewrite` replaces every some iterations, V with them, so that W stays. A
gradient step of V then is one of W preconditioned by AAᵀ and BᵀB. By layer:

* WNN: B whitens the inputs. Desjardins et al., "Natural Neural Networks", NIPS 2015.
* pre-GWNN: B is truncated whitening; post-GWNN: A whitens the outputs. Luo, "Learning Deep
  Architectures via Generalized Whitened Neural Networks", ICML 2017.
* EigenNet: B whitens the inputs and A = Rᵀ the gradients. Luo, "EigenNet: Towards Fast and
  Structural Learning of Deep Neural Networks", IJCAI 2017. No code of GWNN and EigenNet exists:
  what their papers leave open is our reading.

The layer computes y = W ∗ x + (d − W c), which is V ∗ B (x − c), with the padding before c is
subtracted. W is made of V at each forward: B costs a 1×1 convolution of the weight, not of x.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor, nn

from normplug.running import in_recomputation
from normplug.whitened.samples import Samples, moments_of, second_moment_of

__all__ = [
    'EigenConv',
    'PostGWNNConv',
    'PreGWNNConv',
    'WNNConv',
    'WNNLinear',
    'WhitenedLayer',
]


class WhitenedLayer(nn.Module):
    """A part of the whitened layers, beside ``nn.Conv2d`` or ``nn.Linear``.

    Attributes:
        weight: V, (O, C, kh, kw) or (O, C).
        bias: d (O,), a parameter; None if the layer has no bias.
        offset: d of a layer without bias: it makes up for c, and is trained by nothing.
        in_mean: c (C,), the mean of the inputs at the last rewriting; 0 at first.
        in_matrix: B (C, C); None if inputs are not whitened. The identity at first.
        out_matrix: A (O, O); None if outputs are not. The identity at first.
        sampling: whether forward notes moments; :class:`WhiteningHook` sets it.
        seen_in, seen_out: what it noted; of outputs or their gradients.
    """

    of_inputs = True  # B
    of_outputs: str | None = None  # A: 'values' or 'gradients'
    in_rank: float | None = None
    out_rank: float | None = None
    symmetric = False  # B is ZCA
    eps: float

    def _whiten(self, eps: float) -> None:
        _require(eps > 0, f'eps must be above 0, got {eps!r}: it bounds the whitening matrix')
        outputs, inputs = self.weight.shape[:2]
        self.eps, self.sampling = eps, False
        self.register_buffer('offset', None if self.bias is not None else torch.zeros(outputs))
        self.register_buffer('in_mean', torch.zeros(inputs))
        self.register_buffer('in_matrix', torch.eye(inputs) if self.of_inputs else None)
        self.register_buffer('out_matrix', torch.eye(outputs) if self.of_outputs else None)
        self.seen_in = Samples(inputs)
        self.seen_out = Samples(outputs) if self.of_outputs else None

    def canonical(self, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
        """W and b of the plain layer that computes the same, differentiable.

        Args:
            dtype: to compute in; by default float32 or, if the weight has it, float64.
        """
        dtype = dtype or torch.promote_types(self.weight.dtype, torch.float32)
        given = self.offset if self.bias is None else self.bias
        weight = between(self.weight.to(dtype), self.in_matrix, self.out_matrix)
        shift = weight.flatten(2).sum(2) if weight.dim() > 2 else weight
        return weight, given.to(dtype) - shift @ self.in_mean.to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Compute as the layer that :meth:`canonical` describes."""
        with torch.autocast(x.device.type, enabled=False):
            weight, bias = (t.to(self.weight.dtype) for t in self.canonical())
        y = self._apply_weight(x, weight, bias)
        if self.sampling and self.training:
            with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
                self._see(x, y)
        return y

    def _see(self, x: Tensor, y: Tensor) -> None:
        repeated = in_recomputation()  # its inputs were counted, or come with gradients
        if x.numel() > 0 and not repeated:
            samples = self._samples(x.detach())
            self.seen_in.add(moments_of(samples), samples.shape[1])
            if self.of_outputs == 'values':
                self.seen_out.add(moments_of(self._samples(y.detach())), y[:, 0].numel())
        if self.of_outputs == 'gradients' and y.requires_grad and y.numel() > 0:
            if repeated:
                raise RuntimeError(
                    f'{type(self).__name__} does not see its gradients under activation '
                    'checkpointing: set with_cp=False'
                )
            y.register_hook(self._see_gradient)

    def _see_gradient(self, grad: Tensor) -> None:
        with torch.autocast(grad.device.type, enabled=False):
            self.seen_out.add(*second_moment_of(self._samples(grad.detach())))

    def _samples(self, x: Tensor) -> Tensor:
        """(C, S), at least float32; of any number of axes behind N."""
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        return x.movedim(self._channel_axis, 0).flatten(1)

    def _load_from_state_dict(self, state_dict, prefix, *args):
        """Take the weight of a plain layer, of an ImageNet model say, as W: A, B = I and c = 0."""
        if f'{prefix}weight' in state_dict and f'{prefix}in_mean' not in state_dict:
            inputs, outputs = self.in_mean, self.weight.shape[0]
            plain = dict(in_mean=torch.zeros_like(inputs))
            if self.of_inputs:
                plain['in_matrix'] = torch.eye(len(inputs))
            if self.of_outputs:
                plain['out_matrix'] = torch.eye(outputs)
            if self.bias is None:
                plain['offset'] = torch.zeros(outputs)
            state_dict.update({prefix + key: value for key, value in plain.items()})
            for name in ('seen_in', 'seen_out'):
                if getattr(self, name) is not None:
                    fresh = Samples(getattr(self, name).mean.numel())
                    state_dict.update(fresh.state_dict(prefix=f'{prefix}{name}.'))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        """Arguments, with those of the whitening."""
        ranks = ''.join(
            f', {key}={getattr(self, key)}' for key in ('in_rank', 'out_rank') if getattr(self, key)
        )
        return f'{super().extra_repr()}, eps={self.eps}{ranks}'


def between(weight: Tensor, right: Tensor | None, left: Tensor | None) -> Tensor:
    """``left · weight · right`` of (O, C, ...), each pixel of a kernel; None is the identity."""
    if right is not None:
        weight = torch.einsum('oc...,cd->od...', weight, right.to(weight.dtype))
    if left is not None:
        weight = torch.einsum('po,o...->p...', left.to(weight.dtype), weight)
    return weight


class _WhitenedConv(WhitenedLayer):
    _channel_axis = 1

    def _check(self, groups: int) -> None:
        _require(
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
        _require(
            1 <= rank <= channels,
            f'{key}={rank} must lie between 1 and the {channels} {kind} channels of the layer: a '
            f'share of the variance, such as {key}=0.99, suits layers of any width',
        )
    else:
        _require(
            isinstance(rank, float) and 0 < rank <= 1,
            f'{key} must be a number of eigenvectors, an integer, or a share of the variance, a '
            f'float in (0, 1], got {rank!r}',
        )
    return None if rank == 1.0 and type(rank) is float else rank


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
