"""Recognize the normalizer of one layer's tensors, and convert them to another normalizer."""

from __future__ import annotations

import warnings
from collections import defaultdict
from copy import deepcopy
from functools import partial

import torch
from torch import Tensor, nn

from normplug.norms import IBN, SN, SSN
from normplug.norms.whitening import WhiteningNorm

from .source import CheckpointError
from .whitening import WHITENING, is_gw, options_of, start_of

__all__ = ['HARD_SN', 'KINDS', 'Entries', 'convert_layer', 'kind_of', 'norm_layers']

# A layer's tensors by their names below it.
Entries = dict[str, Tensor]

HARD_SN = 'hard-SN'
KINDS = ('SN', 'SSN', HARD_SN, 'IBN', *WHITENING)
_BATCH_NORM = ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')
# A layer that lacks one of these is damaged, not another kind of layer.
_NEEDED = {
    'BN': ('weight', 'bias', 'running_mean', 'running_var'),
    'SN': ('weight', 'bias', 'mean_weight', 'var_weight'),
    'SSN': ('weight', 'bias', 'mean_weight', 'var_weight'),
    'SW': ('weight', 'bias', 'running_mean', 'running_cov', 'sw_mean_weight'),
    'IterNorm': ('weight', 'bias', 'running_mean', 'running_wm'),
}
# Released IBN is two layers in one.
_HALVES = {'IN.weight', 'IN.bias', *(f'BN.{name}' for name in _BATCH_NORM)}


def norm_layers(state: Entries) -> dict[str, Entries]:
    """Return the tensors of every norm layer in ``state`` (ours or released) by layer name."""
    groups = defaultdict(dict)
    for name, value in state.items():
        layer, _, leaf = name.rpartition('.')
        groups[layer][leaf] = value
    for name in [name for name in groups if name.endswith('.IN')]:
        layer = name.removesuffix('.IN')
        halves = {f'IN.{leaf}': value for leaf, value in groups[name].items()}
        halves |= {f'BN.{leaf}': value for leaf, value in groups.get(f'{layer}.BN', {}).items()}
        if halves.keys() >= _HALVES - {'BN.num_batches_tracked'} and halves.keys() <= _HALVES:
            conv = state.get(f'{layer.replace("bn", "conv")}.weight')
            # IBN-Net-c has the same names, for two layers of all channels side by side.
            if conv is None or len(conv) == len(halves['IN.weight']) + len(halves['BN.weight']):
                groups[layer] = halves
                del groups[name], groups[f'{layer}.BN']
    return {name: entries for name, entries in groups.items() if kind_of(entries) is not None}


def kind_of(entries: Entries) -> str | None:
    """Return the normalizer that has these tensors: BN or one of KINDS; None for any other.

    Instance, group and layer norm cannot be told apart, nor can a GW of ours; they need no
    conversion. An EBN has a batch norm's tensors, and is taken for one.
    """
    if 'radius' in entries:
        return 'SSN'
    if 'mean_weight' in entries or 'var_weight' in entries:
        return 'SN'
    if 'IN.weight' in entries:
        return 'IBN'
    if not entries.keys().isdisjoint(('sw_mean_weight', 'sw_var_weight', 'running_cov')):
        return 'SW'
    if 'running_wm' in entries:
        return 'IterNorm'
    if 'gate_logit' in entries:
        return 'BIN'
    if 'group_weight' in entries:
        return 'BCN'
    if 'square_window' in entries:
        return 'MABN'
    if is_gw(entries):
        return 'GW'
    affine = [entries[name] for name in ('weight', 'bias') if name in entries]
    running = [entries[name] for name in ('running_mean', 'running_var') if name in entries]
    if affine and running:
        return 'BN' if running[0].numel() == affine[0].numel() else 'IBN'
    return None


def convert_layer(
    entries: Entries, to: str, logit_init: str, where: str, like: nn.Module | None = None
) -> Entries:
    """Return the tensors of a layer of the normalizer ``to``, in our names and shapes.

    Args:
        entries: the layer's tensors, ours or released.
        to: one of KINDS, or 'BN'.
        logit_init: as SN's argument; for ratios that the layer does not have yet.
        where: file and layer, for the message.
        like: the layer that is to be filled, for the options of one that whitens.

    Raises:
        CheckpointError: the tensors are incomplete, or nothing is known to turn one into the other.
    """
    source = kind_of(entries)
    _check_whole(entries, source, where)
    if source == to and to in ('BN', 'BIN', 'BCN'):
        return dict(entries)
    if source == to:
        build = partial(_same, entries, to)
    elif source == 'BN' and to in ('SN', 'IBN'):
        build = partial(SN, logit_init=logit_init) if to == 'SN' else IBN
    elif source == 'BN' and to == 'SSN':
        if logit_init != 'uniform':
            return _ssn_of_sn(convert_layer(entries, 'SN', logit_init, where))
        build = SSN
    elif source == 'SN' and to in ('SSN', HARD_SN):
        sn = convert_layer(entries, 'SN', logit_init, where)
        return _ssn_of_sn(sn, hard=to == HARD_SN)
    elif source == 'BN' and to in WHITENING:
        build = partial(_as_built, like) if isinstance(like, WHITENING[to]) else WHITENING[to]
    else:
        raise CheckpointError(
            f'{where} is {source}, which cannot become {to}: batch norm can become SN, SSN, IBN, '
            f'SW, IterNorm or GW, SN can become SSN or {HARD_SN}'
        )
    return _load(build, entries, where, from_bn=source == 'BN')


def _check_whole(entries: Entries, kind: str, where: str) -> None:
    lacking = [name for name in _NEEDED.get(kind, ()) if name not in entries]
    if lacking:
        raise CheckpointError(f'{where} is not a whole {kind} layer: {", ".join(lacking)} missing')
    radius = entries.get('radius')
    # An average over models rounds.
    if radius is not None and bool(((radius < 0) | (radius > 1 + 1e-6)).any()):
        raise CheckpointError(
            f"{where} has an SSN's radius of {radius.tolist()}, which must lie in [0, 1]: the file "
            'is damaged'
        )


def _same(entries: Entries, kind: str, channels: int) -> nn.Module:
    """Build the layer with the options that its tensors show."""
    if kind == 'IBN':
        batch = entries['BN.weight' if 'BN.weight' in entries else 'running_mean'].numel()
        return IBN(channels, ratio=(channels - batch + 0.5) / channels)
    if kind in WHITENING:
        return WHITENING[kind](channels, **(options_of(kind, entries) or {'num_groups': 1}))
    using_bn = 'running_mean' in entries
    using_in = entries['mean_weight'].numel() == 2 + using_bn
    return {'SN': SN, 'SSN': SSN}[kind](channels, using_in=using_in, using_bn=using_bn)


def _as_built(layer: nn.Module, channels: int) -> nn.Module:
    twin = deepcopy(layer).cpu()
    twin.reset_parameters()
    return twin


def _load(build, entries: Entries, where: str, from_bn: bool) -> Entries:
    """Fill a layer by its own load hook, which knows the released layouts and batch norm's."""
    parts = ('IN.weight', 'BN.weight') if 'IN.weight' in entries else ('weight',)
    lacking = [name for name in parts if name not in entries]
    if lacking:
        raise CheckpointError(f'{where} is not a whole layer: {", ".join(lacking)} missing')
    channels = sum(entries[name].numel() for name in parts)
    try:
        layer = build(channels).to(entries[parts[0]].dtype)
    except ValueError as error:
        raise CheckpointError(f'{where} has {channels} channels: {error}') from error
    with warnings.catch_warnings():
        # The layer warns that ratios keep their initial values, which is intended here.
        warnings.simplefilter('ignore')
        try:
            if from_bn and isinstance(layer, WhiteningNorm):
                entries = start_of(entries, layer)
            missing, unexpected = layer.load_state_dict(entries, strict=False)
        except RuntimeError as error:
            raise CheckpointError(f'{where} does not fit: {error}') from error
    missing = set(missing) - set(layer.own_names() if from_bn else ())
    if missing or unexpected:
        told = [f'{", ".join(sorted(missing))} missing'] * bool(missing)
        told += [f'{", ".join(unexpected)} unknown'] * bool(unexpected)
        raise CheckpointError(
            f'{where} is not a whole {type(layer).__name__} layer: {"; ".join(told)}'
        )
    return layer.state_dict()


def _ssn_of_sn(sn: Entries, hard: bool = False) -> Entries:
    """Return an SSN with the ratios of an SN; if ``hard``, only the largest of them.

    At radius 0 SparsestMax does not change a point on the simplex: the ratios serve as logits.
    """
    ssn = dict(sn, radius=torch.full_like(sn['mean_weight'][0], float(hard)))
    for part in ('mean', 'var'):
        logits = sn[f'{part}_weight']
        ratios = logits.double().softmax(0)
        choice = nn.functional.one_hot(logits.argmax(), len(logits)).to(logits.dtype)
        ssn[f'{part}_weight'] = choice if hard else ratios.to(logits.dtype)
        ssn[f'{part}_choice'] = choice if hard else torch.zeros_like(choice)
    return ssn
