"""Precise BN: the population statistics of a model, estimated from batches.

Wu and Johnson, "Rethinking 'Batch' in BatchNorm", 2021, section 3 ("precise BN"). Luo et al.,
"Differentiable Learning-to-Normalize via Switchable Normalization", ICLR 2019, section 2.4 ("batch
average"): the released code of SN passes 200 batches through the network and averages.

Deviations: the released code averages μ and μ² + σ² over batches of one size, which loses digits
and is wrong for batches of unequal sizes; here moments are merged by their counts. Everything
except the norms is in evaluation mode, because the statistics are used by the network in that mode.
"""

from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from normplug.errors import TrainingError
from normplug.norms import KN, BaseNorm
from normplug.norms.before_step import BeforeStep
from normplug.own_code import own_code

from .central_moments import CentralMoments
from .input_moments import InputMoments
from .totals import Total, running_statistics, total_of

__all__ = ['PopulationError', 'buffers_kept', 'estimate_population', 'live_norms', 'modes_kept']


class PopulationError(TrainingError):
    """The statistics cannot be computed. Those of the model are unchanged."""


def live_norms(model: nn.Module) -> dict[str, nn.Module]:
    """Return, by name, the norms whose running statistics change when ``model`` is trained.

    These are our norms and torch's batch norms (not its InstanceNorm), except those that are frozen
    or that ``norm_eval`` or ``frozen_stages`` of an mm model keeps in evaluation mode.

    Raises:
        PopulationError: one of them is a KN.
    """
    with modes_kept(model):
        model.train()
        layers = {name: layer for name, layer in model.named_modules() if _is_live(layer)}
    filtered = next((name for name, layer in layers.items() if isinstance(layer, KN)), None)
    if filtered is not None:
        raise PopulationError(
            f'{filtered} is a KN, whose running statistics are averages of filtered moments of the '
            'training batches, not the moments of its inputs: they cannot be recomputed'
        )
    return layers


@torch.no_grad()
def estimate_population(
    model: BaseModel,
    batches: Iterable,
    number: int,
    only: Collection[str] | None = None,
    kurtosis_of: Collection[str] = (),
) -> list[str]:
    """Replace the running statistics of ``model`` by those of its inputs over ``batches``.

    Each batch goes through ``model.val_step``, which preprocesses it and predicts as in validation,
    while :func:`live_norms` normalize by the batch. Their running statistics become the mean and
    variance of all their inputs, or covariance (SW). The result is exact to rounding for batches of
    unequal sizes, for layers that are called several times a batch, and in a process group, where
    every rank has its own batches. IterNorm's whitening matrices become, as published, an average
    of those of the batches, weighted by their sizes; with SyncIterNorm a batch is that of all
    ranks. ``num_batches_tracked``, the rest of the model and all modes do not change.

    PN and BRN too normalize by the batch here. The statistics by which they would are those that
    are to be replaced, of the weights of some time ago: each layer would see what layers before it,
    off by the change of their own inputs, make of the batch. Pooled over the batches, what a
    normalizer by the batch gives on has the mean and variance that theirs has.

    Args:
        model: the model, not wrapped for distribution.
        batches: batches of a dataloader; in a process group, the same number on every rank.
        number: maximum number of batches.
        only: names of the layers whose statistics are replaced; None for all of them.
        kurtosis_of: names of PN layers whose ``kurtosis`` is replaced by that of all their inputs.

    Returns:
        Names of the layers that got fewer than two values per channel, for example those of a
        head that only the loss uses. They keep their statistics.

    Raises:
        PopulationError: the model has no such layer, there is no batch, or a layer's input has NaN
            or infinite values.
    """
    layers = live_norms(model)
    if not layers:
        raise PopulationError(
            'the population cannot be estimated: the model has no norm whose running statistics '
            'change in training (frozen=True, norm_eval and frozen_stages keep them)'
        )
    chosen = layers.keys() if only is None else only
    totals = {name: total_of(layers[name]) for name in chosen}
    with ExitStack() as stack:
        stack.enter_context(modes_kept(model))
        stack.enter_context(buffers_kept(layers.values()))
        stack.enter_context(torch.compiler.set_stance('force_eager'))  # hooks are called
        model.eval()
        inside: dict[int, tuple[Total, nn.Module]] = {}
        for layer in layers.values():
            layer.train()
            if isinstance(layer, BeforeStep):
                stack.enter_context(layer.by_batch())
        if kurtosis_of:
            inputs = InputMoments([layers[name] for name in kurtosis_of], drop_nonfinite=False)
            stack.callback(inputs.remove)
            inputs.is_on = True
        for name in totals:
            layer = layers[name]
            if own_code(layer) and not isinstance(layer, BaseNorm):
                inside[id(layer.running_mean)] = totals[name], layer
            else:
                handle = layer.register_forward_pre_hook(totals[name], with_kwargs=True)
                stack.callback(handle.remove)
        stack.enter_context(_Inside(inside))
        seen = 0
        for batch in islice(batches, number):
            model.val_step(batch)
            seen += 1
    if not seen:
        raise PopulationError(
            'the estimate of the population got no batches: the dataloader is empty'
        )
    merged = {name: total.over_ranks() for name, total in totals.items()}
    kurtoses: dict[str, CentralMoments] = {}
    if kurtosis_of:
        inputs.end_iteration()
        parts = torch.stack(inputs.total).split([layers[n].num_features for n in kurtosis_of], 1)
        kurtoses = {n: CentralMoments(*part) for n, part in zip(kurtosis_of, parts, strict=True)}
    broken = [name for name, (found, _) in merged.items() if not _finite(found)]
    broken += [name for name, found in kurtoses.items() if not _finite(found)]
    if broken:
        raise PopulationError(
            f'the input of {len(broken)} norms, {broken[0]} first, has NaN or infinite values: the '
            'training diverged, or a layer overflows in evaluation mode'
        )
    unseen = []
    for name, (found, count) in merged.items():
        if count < 2:
            unseen.append(name)
            continue
        correction = count / (count - 1) if totals[name].unbiased else 1.0
        mean, spread = running_statistics(layers[name])
        if getattr(layers[name], 'centred', True):
            mean.copy_(found[0].view_as(mean))
            spread.copy_(found[1] * correction)
        else:
            spread.copy_(found[1] + found[0].square())
    for name, found in kurtoses.items():
        if found.count[0] >= 2:
            layers[name].kurtosis.copy_(found.kurtosis())
        elif name not in unseen:
            unseen.append(name)
    return unseen


class _Inside(TorchFunctionMode):
    """Adds up what batch norms of other code normalize, which may be less than their input."""

    def __init__(self, totals: dict[int, tuple[Total, nn.Module]]) -> None:
        super().__init__()
        self._totals = totals  # by the identity of the running mean

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Call ``func``; add the input of each batch_norm to its total."""
        kwargs = kwargs or {}
        if func is F.batch_norm:
            given = dict(zip(('input', 'running_mean'), args, strict=False)) | kwargs
            if found := self._totals.get(id(given['running_mean'])):
                total, layer = found
                total(layer, (given['input'],), {})
        return func(*args, **kwargs)


def _is_live(layer: nn.Module) -> bool:
    if isinstance(layer, BaseNorm):
        return layer.training and layer.moves_statistics
    return isinstance(layer, _BatchNorm) and layer.training and layer.running_mean is not None


def _finite(found: tuple[Tensor, ...]) -> bool:
    return all(bool(torch.isfinite(t).all()) for t in found)


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Restore afterwards which modules are in training mode."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def buffers_kept(layers: Iterable[nn.Module]) -> Iterator[None]:
    """Restore afterwards what the buffers of ``layers`` hold."""
    before = [(buffer, buffer.clone()) for layer in layers for buffer in layer.buffers()]
    try:
        yield
    finally:
        for buffer, value in before:
            buffer.copy_(value)
