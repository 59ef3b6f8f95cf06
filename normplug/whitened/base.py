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

from collections.abc import Mapping
from numbers import Real

import torch
from torch import Tensor, nn

from normplug.running import in_recomputation
from normplug.whitened.samples import Samples, moments_of, second_moment_of

__all__ = ['WhitenedLayer', 'between', 'require']


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
        require(
            isinstance(eps, Real) and not isinstance(eps, bool) and 0 < eps < float('inf'),
            f'eps must be a number above 0, got {eps!r}: it bounds the whitening matrix',
        )
        outputs, inputs = self.weight.shape[:2]
        self.eps, self.sampling = eps, False
        self.register_buffer('offset', None if self.bias is not None else torch.zeros(outputs))
        self.register_buffer('in_mean', torch.zeros(inputs))
        self.register_buffer('in_matrix', torch.eye(inputs) if self.of_inputs else None)
        self.register_buffer('out_matrix', torch.eye(outputs) if self.of_outputs else None)
        self.seen_in = Samples(inputs)
        of_gradients = self.of_outputs == 'gradients'
        self.seen_out = Samples(outputs, scaled=of_gradients) if self.of_outputs else None

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

    @torch.compiler.disable  # it notes what it sees in Python
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
            samples = self._samples(grad.detach())
            self.seen_out.add(second_moment_of(samples), samples.shape[1])

    def _samples(self, x: Tensor) -> Tensor:
        """(C, S), at least float32; of any number of axes behind N."""
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        return x.movedim(self._channel_axis, 0).flatten(1)

    def _load_from_state_dict(self, state_dict, prefix, *args):
        """Take the weight of a plain layer, of an ImageNet model say, as W: A, B = I and c = 0."""
        weight = state_dict.get(f'{prefix}weight')
        if weight is not None and f'{prefix}in_mean' not in state_dict:
            state_dict.update({prefix + key: t for key, t in self._plain_state(weight).items()})
            if self.bias is None and f'{prefix}bias' in state_dict:  # of a deployed one
                state_dict[f'{prefix}offset'] = state_dict.pop(f'{prefix}bias')
        elif weight is not None and (differs := self.differs_from(state_dict, prefix)):
            args[-1].append(  # error messages
                f'{prefix.rstrip(".")}: the checkpoint is that of another whitened layer than '
                f'{type(self).__name__} ({differs} differs): build the model with the conv_cfg '
                'that it was trained with'
            )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def differs_from(self, state: Mapping[str, Tensor], prefix: str) -> str:
        """Return what only one of the layer and another's ``state`` has; '' if they are alike."""
        own = ('in_matrix', 'out_matrix', 'bias', 'offset')
        return ', '.join(n for n in own if (getattr(self, n) is None) != (prefix + n not in state))

    def _plain_state(self, weight: Tensor) -> dict[str, Tensor]:
        outputs, inputs = weight.shape[:2]
        plain = {'in_mean': weight.new_zeros(inputs)}
        if self.of_inputs:
            plain['in_matrix'] = torch.eye(inputs).to(weight)
        if self.of_outputs:
            plain['out_matrix'] = torch.eye(outputs).to(weight)
        if self.bias is None:
            plain['offset'] = weight.new_zeros(outputs)
        for name, channels in (('seen_in', inputs), ('seen_out', outputs)):
            if getattr(self, name) is not None:
                fresh = Samples(channels).to(weight.device)
                plain |= fresh.state_dict(prefix=f'{name}.')
        return plain

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


def require(condition: bool, message: str) -> None:
    """Raise ``ValueError`` with the message unless the condition holds."""
    if not condition:
        raise ValueError(message)
