"""The noise of a layer's batch statistics, measured over several batches at fixed weights.

The laws that it is compared with are those of Luo et al., "Towards Understanding Regularization in
Batch Normalization", ICLR 2019 (arXiv 1809.00846): see :mod:`normplug.batch_noise`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from math import isfinite
from typing import NamedTuple

import torch
from mmengine.dist import all_gather_object, get_world_size
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from normplug.batch_noise import decay_strength, jacobian_trace, squared_norm, std_of_std
from normplug.dist import group_reducer
from normplug.forward_hooks import input_of
from normplug.norms import CBN, EBN, MABN, BaseNorm
from normplug.norms.whitening import WhiteningNorm
from normplug.ops.passes import backward_reduce, taken
from normplug.own_code import own_code
from normplug.running import in_recomputation

from .central_moments import CentralMoments, central_moments, merge_moments, over_ranks
from .sample_grads import SampleGradients

__all__ = ['NoiseRecorder', 'layers_with_batch_noise']

# The laws are of a mean and a standard deviation of one batch, each of one channel.
_OTHER_STATISTICS = (WhiteningNorm, MABN, CBN, EBN)


def layers_with_batch_noise(model: nn.Module) -> dict[str, nn.Module]:
    """Return, by name, the layers of ``model`` that take a batch's mean and variance now.

    These are our norms and torch's batch norms in training mode: those that normalize by a batch,
    and PN, which may only average its statistics. Not those that are frozen or whiten, nor MABN,
    CBN and EBN, whose statistics have other laws, nor batch norms with code of their own, which may
    normalize another tensor than their input.
    """
    return {name: layer for name, layer in model.named_modules() if _has_noise(layer)}


class NoiseRecorder:
    """Watches layers during forward and backward passes, and says what their noise was.

    A layer that runs several times a pass has a row for each call, because each call has a
    population of its own: ``name``, ``name/call_2``, …. Such a layer has no ζ.

    Args:
        layers: by name; their model is in training mode and does not change.
        scale: by which the loss is multiplied before the backward pass.
    """

    def __init__(self, layers: dict[str, nn.Module], scale: float = 1.0) -> None:
        self._layers = layers
        self._rows: dict[str, _Row] = {}  # in the order of the calls
        self._calls: dict[str, int] = {}  # of this pass
        self._learning = [name for name, layer in layers.items() if _learns(layer)]
        self._scale = scale
        self._gradients: SampleGradients | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the passes that run in this context; :meth:`end_batch` has to follow each."""
        with ExitStack() as stack:
            if self._learning:
                layers = [self._layers[name] for name in self._learning]
                self._gradients = SampleGradients(layers)
                stack.callback(self._gradients.remove)
            for name, layer in self._layers.items():
                note = partial(self._note, name)
                stack.callback(layer.register_forward_hook(note, with_kwargs=True).remove)
            yield

    def end_batch(self) -> None:
        """Take what the passes of a batch have shown."""
        self._calls = {}
        if self._gradients is not None:
            self._gradients.end_iteration(self._gradients.sums.new_tensor(self._scale))

    def records(self) -> dict[str, dict[str, float]]:
        """Return the quantities of each row, over all ranks; every rank has to call this.

        Quantities without a finite value are left out, and rows without any are empty: those with
        fewer than two batches, or with NaN in their inputs. See
        :class:`normplug.hooks.BatchNoiseHook` for the names.
        """
        names = dict.fromkeys(name for rank in all_gather_object(list(self._rows)) for name in rank)
        squares: dict[str, Tensor] = {}
        if self._gradients is not None:
            sums, counts = self._gradients.take()
            of_layers = torch.cat((sums, counts)).split(self._gradients.sizes, 1)
            squares = dict(zip(self._learning, of_layers, strict=True))
        single = {name for name in names if '/' not in name and f'{name}/call_2' not in names}
        return {
            name: self._record(name, squares.get(name) if name in single else None)
            for name in names
        }

    @torch.no_grad()
    def _note(
        self, name: str, layer: nn.Module, inputs: tuple[Tensor, ...], kwargs: dict, y: Tensor
    ) -> None:
        counts = not in_recomputation()
        # Our norms show their gradients by themselves; torch's need x̂, in a recomputation too.
        needs_x_hat = name in self._learning and y.requires_grad and not isinstance(layer, BaseNorm)
        if not (counts or needs_x_hat):
            return
        x = input_of(inputs, kwargs).detach()
        batches = _batches_of(layer, x)
        if counts:
            call = self._calls[name] = self._calls.get(name, 0) + 1
            row = self._rows.setdefault(name if call == 1 else f'{name}/call_{call}', _Row())
            row.batches += batches
            row.share = 1 / get_world_size(layer.process_group) if _is_synchronized(layer) else 1.0
        if needs_x_hat and batches:
            y.register_hook(partial(self._of_torch, name, layer, x, batches[0].moments))

    @torch.no_grad()
    def _of_torch(
        self, name: str, layer: nn.Module, x: Tensor, of: CentralMoments, grad: Tensor
    ) -> None:
        """Add the gradients of a batch norm of torch, Σ dy x̂ and Σ dy, from that of its output."""
        dy_n, x_n = (t.unsqueeze(-1) if t.dim() == 2 else t for t in (grad, x))
        to_bias, about_mean = backward_reduce(dy_n, x_n, taken(of.mean, x_n).expand(x.shape[:2]))
        to_weight = about_mean * taken((of.second + layer.eps).rsqrt(), x_n)
        self._gradients.add(self._learning.index(name), to_weight, to_bias)

    def _record(self, name: str, squares: Tensor | None) -> dict[str, float]:
        layer = self._layers[name.partition('/')[0]]
        row = self._rows.get(name, _Row())
        first = _first(layer)
        some = next(chain(layer.parameters(), layer.buffers()), torch.zeros(()))
        none = CentralMoments.none(layer.num_features - first, some)
        population = over_ranks(merge_moments([batch.moments for batch in row.batches] or [none]))
        own = [torch.stack(_OfBatches.of(batch, population)) for batch in row.batches]
        zero = none.mean.expand(len(_OfBatches._fields), -1)
        of_batches = row.share * torch.stack([zero, *own]).sum(0)
        of_images = zero[: len(_OfImages._fields)] if squares is None else squares[:, first:]
        sums = torch.cat((of_batches, of_images))
        reducer = group_reducer()
        if reducer is not None:
            sums = reducer.sum(sums)
        number = len(of_batches)
        of_batches, of_images = _OfBatches(*sums[:number]), _OfImages(*sums[number:])
        affine = (
            torch.full_like(none.mean, value) if tensor is None else tensor.detach()[first:]
            for tensor, value in ((layer.weight, 1.0), (layer.bias, 0.0))
        )
        return _quantities(population, of_batches, of_images, *affine)


class _Batch(NamedTuple):
    """A batch whose statistics a layer uses; ``images`` is (), over all ranks of a Sync layer."""

    moments: CentralMoments
    images: Tensor


@dataclass
class _Row:
    """The batches of one layer and call.

    Attributes:
        share: of a batch that this rank counts, where other ranks have the same.
    """

    batches: list[_Batch] = field(default_factory=list)
    share: float = 1.0


def _batches_of(layer: nn.Module, x: Tensor) -> list[_Batch]:
    """The batches in one input: one of each group of ``virtual_batch_size``, or of all ranks."""
    x = x[:, _first(layer) :]
    if _is_synchronized(layer):
        own = central_moments(x)
        packed = torch.stack((*own, torch.full_like(own.mean, len(x))))
        reducer = group_reducer(layer.process_group)
        ranks = packed[None] if reducer is None else reducer.gather(packed)
        batch = _Batch(
            merge_moments([CentralMoments(*rank[:5]) for rank in ranks]), ranks[:, 5, 0].sum()
        )
        return [batch] if batch.images > 0 else []
    if not len(x):
        return []
    groups = x.split(getattr(layer, 'virtual_batch_size', None) or len(x))
    of_groups = ((central_moments(group), len(group)) for group in groups)
    return [_Batch(moments, moments.mean.new_tensor(images)) for moments, images in of_groups]


class _OfBatches(NamedTuple):
    """Sums over batches, (C,) each: of their μ and σ without those of the population."""

    mean: Tensor
    mean_squares: Tensor
    std: Tensor
    std_squares: Tensor
    batches: Tensor
    inverse_images: Tensor
    values: Tensor

    @classmethod
    def of(cls, batch: _Batch, population: CentralMoments) -> _OfBatches:
        """Return those of one batch."""
        moments = batch.moments
        mean = moments.mean - population.mean
        std = moments.second.sqrt() - population.second.sqrt()
        one = torch.ones_like(mean)
        return cls(mean, mean.square(), std, std.square(), one, one / batch.images, moments.count)


class _OfImages(NamedTuple):
    """Sums over images, (C,) each: of the squares of their gradients; and numbers of images."""

    by_weight: Tensor
    by_bias: Tensor
    with_weight: Tensor
    with_bias: Tensor


def _quantities(
    population: CentralMoments,
    of_batches: _OfBatches,
    of_images: _OfImages,
    weight: Tensor,
    bias: Tensor,
) -> dict[str, float]:
    """The finite ones of the quantities of a row.

    Args:
        population: the moments of all values of all batches.
        of_batches, of_images: sums over ranks too.
        weight, bias: γ and β, (C,).
    """
    number = of_batches.batches[0].item()
    if number < 1.5 or not bool(torch.isfinite(population.second).all()):
        return {}
    images = number / of_batches.inverse_images[0].item()
    values = of_batches.values[0].item() / number
    var_mean = (of_batches.mean_squares - of_batches.mean.square() / number) / (number - 1)
    var_std = (of_batches.std_squares - of_batches.std.square() / number) / (number - 1)
    # The mean of the batches is closer to them than that of the population is.
    variance = population.second + var_mean / number
    varies = ~population.is_constant()
    rho, gamma, beta = (t[varies] for t in (population.kurtosis(), weight, bias))
    var_mean, var_std, variance = (t[varies] for t in (var_mean, var_std, variance))
    fisher = of_images.by_weight[varies] / of_images.with_weight[varies]
    curvature = of_images.by_bias[varies] / of_images.with_bias[varies]
    sigma = variance.sqrt()
    zeta = decay_strength(fisher, curvature, rho, images)
    found = {
        'mean_noise': (var_mean / variance).mean(),
        'mean_law': 1 / images,
        'mean_samples': _median(variance / var_mean),
        'std_noise': (var_std / variance).mean(),
        'std_law': std_of_std(torch.ones_like(rho), rho, images).square().mean(),
        'std_samples': _median(std_of_std(sigma, rho, 1).square() / var_std),
        'kurtosis': rho.mean(),
        'kurtosis_median': _median(rho),
        'zeta': zeta.mean(),
        'decay': (zeta * gamma.square()).sum() if len(zeta) else zeta.mean(),
        'jacobian_trace': jacobian_trace(gamma, sigma, values).mean(),
        'squared_norm': squared_norm(gamma, beta, values).mean(),
        'gamma': gamma.mean(),
        'sigma': sigma.mean(),
        'images': images,
        'values': values,
        'constant_channels': len(varies) - len(sigma),
    }
    return {name: float(value) for name, value in found.items() if isfinite(value)}


def _median(values: Tensor) -> Tensor:
    return values.median() if len(values) else values.mean()


def _learns(layer: nn.Module) -> bool:
    return layer.weight is not None and layer.weight.requires_grad


def _first(layer: nn.Module) -> int:
    """The first channel with batch statistics."""
    return layer.batch_from if isinstance(layer, BaseNorm) else 0


def _is_synchronized(layer: nn.Module) -> bool:
    return layer.synchronized if isinstance(layer, BaseNorm) else hasattr(layer, 'process_group')


def _has_noise(layer: nn.Module) -> bool:
    if isinstance(layer, BaseNorm):
        if isinstance(layer, _OTHER_STATISTICS):
            return False
        return layer.training and layer.moves_statistics
    return isinstance(layer, _BatchNorm) and layer.training and not own_code(layer)
