"""Statistics of a convolution's output in past iterations, brought up to the weight of now.

Output channel o of a convolution is w_o · p + b_o, for the patch p of its input at each position.
So the moments of h = w · p over all positions change with the weight by

    ∂mean_o / ∂w_o = mean(p),    ∂var_o / ∂w_o = 2 mean((h_o − mean_o) p),

the first the same for all channels of a group, the second one call of the convolution's own
gradient of its weight. Nothing has to be differentiated: the input of a past iteration is constant.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from math import prod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normplug.precision import small_dtype, working_dtype
from normplug.stats import Moments

__all__ = ['Conv', 'Entry', 'History', 'compensated', 'entry_of']

Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d

_NONE = -1.0  # in place of a variance that was not finite; a checkpoint may have no NaN
_OF_WEIGHT = {1: nn.grad.conv1d_weight, 2: nn.grad.conv2d_weight, 3: nn.grad.conv3d_weight}


class Entry(NamedTuple):
    """What is kept of one iteration; D is the size of a patch, C_in / groups · taps.

    Attributes:
        mean: of the output without the convolution's bias, (C,).
        var: biased, (C,); negative where it was not finite.
        mean_slope: ∂mean / ∂w, the mean patch, (groups, D).
        var_slope: ∂var / ∂w, (C, D).
        weight: w, (C, D).
    """

    mean: Tensor
    var: Tensor
    mean_slope: Tensor
    var_slope: Tensor
    weight: Tensor


@torch.no_grad()
def entry_of(conv: Conv, x: Tensor, h: Tensor, batch: Moments) -> Entry:
    """Return what to keep of an iteration.

    Args:
        conv: any stride, dilation, number of groups, and padding with zeros.
        x: its input, (N, C_in, *size).
        h: its output for x.
        batch: moments of h, (C,) each.
    """
    batch = Moments(*(t.detach() for t in batch))
    dtype = working_dtype(conv.weight)
    x, h = x.detach().to(dtype), h.detach().to(dtype)
    count = h.numel() // h.shape[1]
    centred = h - batch.mean.to(dtype).view(-1, *[1] * (h.dim() - 2))
    var_slope = _of_weight(conv, x, centred) * (2 / count)
    ones = h.new_ones(h.shape[0], conv.groups, *h.shape[2:])
    mean_slope = _of_weight(conv, x, ones) / count
    mean = batch.mean if conv.bias is None else batch.mean - conv.bias.detach()
    slopes = mean_slope.flatten(1), var_slope.flatten(1)
    finite = torch.isfinite(batch.mean.sum() + batch.var.sum())
    mean, *slopes = (torch.where(finite, t, 0) for t in (mean, *slopes))
    weight = conv.weight.detach().flatten(1).to(dtype, copy=True)
    return Entry(mean, torch.where(finite, batch.var, _NONE), *slopes, weight)


def _of_weight(conv: Conv, x: Tensor, grad: Tensor) -> Tensor:
    """The gradient of a weight (of as many channels as ``grad`` has) for that of the output."""
    # Of each axis, the last first, as F.pad takes them; of padding='same' and 'valid' too.
    pads = conv._reversed_padding_repeated_twice
    before, after = pads[0::2], pads[1::2]
    if before != after:  # 'same' and an even kernel
        x, before = F.pad(x, pads), [0] * len(before)
    size = grad.shape[1], conv.in_channels // conv.groups, *conv.kernel_size
    how = conv.stride, tuple(reversed(before)), conv.dilation, conv.groups
    return _OF_WEIGHT[len(conv.kernel_size)](x, size, grad, *how)


@torch.no_grad()
def compensated(entries: Iterable[Entry], conv: Conv) -> tuple[Tensor, Tensor, Tensor]:
    """Return the moments as they would be with the weight of now, to first order.

    First order in the mean and in E[h²], as in the paper: the variance is their difference.

    Returns:
        Means, variances, and 1 where there is a variance that is not negative, else 0 (mean and
        variance are 0 then too): (K, C) each, K the number of entries, in the dtype of the moments.
    """
    means, variances = [], []
    # Autocast would take the sums in half precision, beyond which slopes may lie.
    with torch.autocast(conv.weight.device.type, enabled=False):
        bias = 0 if conv.bias is None else conv.bias.detach()
        for entry in entries:
            step = conv.weight.detach().flatten(1).to(entry.weight.dtype) - entry.weight
            by_group = step.unflatten(0, (conv.groups, -1))
            to_mean = torch.linalg.vecdot(by_group, entry.mean_slope.unsqueeze(1)).flatten()
            to_var = torch.linalg.vecdot(step, entry.var_slope)
            to_mean, to_var = (t.to(entry.mean.dtype) for t in (to_mean, to_var))
            means.append(entry.mean + bias + to_mean)
            # E[h²] − E[h]² without the difference: (var + to_var) + mean² less the sum's square.
            variances.append(entry.var + to_var - to_mean.square())
    mean, var = torch.stack(means), torch.stack(variances)
    known = (var >= 0) & torch.isfinite(mean + var)
    return *(torch.where(known, t, 0) for t in (mean, var)), known.to(mean.dtype)


class History:
    """The last entries of a layer, and how many iterations there were.

    No module, and no buffers: only the first iteration shows their shapes, when there are copies of
    the model already (EMA) that have to have the same ones; and averages of them mean nothing.

    Args:
        size: how many entries are kept.
    """

    _NAMES = tuple(f'history_{name}' for name in Entry._fields)
    NAMES = 'history_iterations', *_NAMES

    def __init__(self, size: int) -> None:
        self.entries: deque[Entry] = deque(maxlen=size)
        self.iterations = 0

    def __copy__(self) -> History:
        """Return one of the same entries."""
        twin = History(self.entries.maxlen)
        twin.entries.extend(self.entries)
        twin.iterations = self.iterations
        return twin

    def clear(self) -> None:
        """Forget all."""
        self.entries.clear()
        self.iterations = 0

    def fits(self, conv: Conv) -> bool:
        """Whether the entries, if there are any, are of a convolution of this shape."""
        shape = conv.out_channels, prod(conv.weight.shape[1:])
        return all(
            entry.weight.shape == shape and entry.mean_slope.shape == (conv.groups, shape[1])
            for entry in self.entries
        )

    def apply(self, function: Callable[[Tensor], Tensor]) -> None:
        """Replace each tensor, as ``nn.Module._apply`` does: another device or dtype."""
        self._fill(Entry(*map(function, entry)) for entry in self.entries)

    def state(self) -> dict[str, Tensor]:
        """Return tensors by name, to save; none where there was no iteration yet."""
        if not self.iterations:
            return {}
        of_entries = zip(*self.entries, strict=True)
        stacked = (torch.stack(tensors) for tensors in of_entries)
        state = dict(zip(self._NAMES, stacked, strict=False))  # none before the first entry
        return {'history_iterations': torch.tensor(self.iterations), **state}

    def load(self, state: dict[str, Tensor], like: Tensor) -> None:
        """Take what :meth:`state` returned, to the device of a tensor; forget all else."""
        self.clear()
        if 'history_iterations' not in state:
            return
        self.iterations = int(state['history_iterations'])
        if all(name in state for name in self._NAMES):
            dtypes = [small_dtype(like)] * 2 + [working_dtype(like)] * 3
            of_entries = (
                state[name].to(like.device, dtype, copy=True).unbind()
                for name, dtype in zip(self._NAMES, dtypes, strict=True)
            )
            self._fill(Entry(*tensors) for tensors in zip(*of_entries, strict=True))

    def _fill(self, entries: Iterable[Entry]) -> None:
        self.entries = deque(entries, self.entries.maxlen)
