"""Convert the tensors of a checkpoint to our normalizers, or to the released code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from normplug.norms.history import History

from . import names
from .fit import kind_in
from .layers import Entries, convert_layer, kind_of, norm_layers
from .notes import notes_on
from .plan import SWITCHABLE, check_plan, check_releasable, layer_of, planned
from .released import released_layer
from .report import Report
from .resnet import Architecture, architecture, is_resnet_key
from .source import CheckpointError, Source, few

__all__ = ['Conversion', 'convert']

# What a PN, BRN, EstBCN or MABN has for its training alone: no batch norm's, of no use to others.
_OF_TRAINING = ('kurtosis', 'r_max', 'd_max', 'speed', 'square_window', 'gradient_window')


@dataclass
class Conversion:
    """The result of :func:`convert`.

    Attributes:
        state: the tensors.
        report: what was done.
        network: the ResNet; None if the layout is 'model' and it has another backbone.
        kept: tensors, by our names, that the released layout cannot hold.
    """

    state: dict[str, Tensor]
    report: Report
    network: Architecture | None
    kept: dict[str, Tensor] = field(default_factory=dict)


def convert(
    source: Source,
    to: str | None = None,
    norm: str | None = None,
    logit_init: str = 'uniform',
    model: Mapping[str, nn.Module] | None = None,
) -> Conversion:
    """Convert a checkpoint of the released code, of ours, or of a batch norm network.

    Args:
        source: the checkpoint.
        to: one of :data:`.names.LAYOUTS`. Default: 'model' for what has a ``backbone.``, else
            'backbone'.
        norm: what norm layers become, one of :data:`.layers.KINDS`; 'IBN' stands where IBN-Net-a
            has it. None leaves them as they are.
        logit_init: argument of SN, for ratios that the file does not have.
        model: layer name (without ``backbone.`` unless ``to`` is 'model') → the normalizer in the
            model that is to be filled, one of those of :func:`.fit.norms_in`: its kind is what
            ``norm`` is if that is None, and its options are those of a layer that whitens.

    Raises:
        CheckpointError: the file is not of a network that can be converted so.
    """
    to = to or names.default_layout(source.state)
    origin = names.bare_names(source.state, to, source.path)
    state = {bare: source.state[name] for bare, name in origin.items()}
    network = _network_within(state) if to == 'model' else _network(state, source.path)
    without = to in ('classifier', 'released') and names.CLASSIFIER[0] not in state
    if without and to == 'classifier':
        raise CheckpointError(
            f'{source.path} has no classifier (fc.* or head.fc.*): convert it --to backbone'
        )
    layers = norm_layers(state)
    model = model or {}
    kinds = {name: kind_in(layer) for name, layer in model.items()}
    plan = {name: planned(name, entries, norm, kinds) for name, entries in layers.items()}
    check_plan(plan, layers, norm, source.path, has_in=any('.IN.' in name for name in state))
    if logit_init != 'uniform' and not any(
        kind_of(layers[name]) == 'BN' and kind in SWITCHABLE for name, kind in plan.items()
    ):
        raise CheckpointError(
            f'{source.path}: no batch norm of it becomes SN or SSN, so that --logit-init '
            f'{logit_init} changes nothing; drop it'
        )
    if to == 'released':
        check_releasable(state, layers, plan, source.path)

    report = Report(source.path, str(network or 'not a ResNet'), len(source.state))
    placed = set(origin.values())
    report.unused = [name for name in source.state if name not in placed]
    report.lacking = [*names.CLASSIFIER] if without else []
    converted, kept = {}, {}
    for name, entries in layers.items():
        where, kind = f'{source.path}: layer {name}', kind_of(entries)
        drops = set(_OF_TRAINING) if to == 'released' or plan[name] != 'BN' else set()
        drops |= {*History.NAMES}  # of a CBN: of its convolution in that training
        given = {leaf: value for leaf, value in entries.items() if leaf not in drops}
        converted[name] = convert_layer(given, plan[name], logit_init, where, model.get(name))
        report.norms[kind if kind == plan[name] else f'{kind} → {plan[name]}'] += 1
        _restore(converted[name], source.kept, name)
        report.anew += _anew(name, entries, converted[name])
        drops |= entries.keys() if plan[name] == 'GW' else set()  # it has no statistics
        report.unused += [
            origin[f'{name}.{leaf}'] for leaf in entries if leaf in drops - converted[name].keys()
        ]
    report.notes = notes_on(source, layers, plan, converted, to)
    if to == 'released':
        for name, entries in converted.items():
            converted[name], rest = released_layer(entries, f'{source.path}: layer {name}')
            kept.update({f'{name}.{leaf}': value for leaf, value in rest.items()})
        report.anew = [name for name in report.anew if name not in kept]

    state = _with_layers(state, layers, converted)
    place = {
        bare: names.placed(bare, to, plan.get(layer_of(bare, layers))) for bare in (*origin, *state)
    }
    report.renamed = {
        old: new for bare, old in origin.items() if (new := place[_successor(bare, state)]) != old
    }
    report.anew = [place[name] for name in report.anew]
    state = {place[name]: value for name, value in state.items()}
    return Conversion(state, report, network, kept)


def _network(state: dict[str, Tensor], path: str) -> Architecture:
    backbone = {name: value for name, value in state.items() if not names.is_classifier(name)}
    network = architecture(backbone, path)
    foreign = [name for name in backbone if not is_resnet_key(name)]
    if foreign:
        raise CheckpointError(
            f'{path} is no plain {network}: it has {len(foreign)} more tensors '
            f'({few(foreign)}). Pre-activation (v2), SE and other variants cannot be converted'
        )
    return network


def _network_within(state: dict[str, Tensor]) -> Architecture | None:
    """Return the ResNet that is the backbone of a whole model."""
    prefix = 'backbone.'
    below = {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
    try:
        return architecture(below, '')
    except CheckpointError:  # any other backbone, whose names stay as they are
        return None


def _restore(entries: Entries, kept: dict[str, Tensor], layer: str) -> None:
    """Restore the tensors that a conversion to the released layout kept aside."""
    for leaf, value in entries.items():
        own = kept.get(f'{layer}.{leaf}')
        if isinstance(own, Tensor) and own.shape == value.shape:
            entries[leaf] = own


def _anew(layer: str, before: Entries, after: Entries) -> list[str]:
    old = {leaf.split('.')[-1].replace('_fixed', '_choice') for leaf in before}
    if 'running_var' in old:
        old |= {'running_cov', 'running_wm'}
    return [f'{layer}.{leaf}' for leaf in after if leaf not in old]


def _with_layers(
    state: dict[str, Tensor], layers: dict[str, Entries], converted: dict[str, Entries]
) -> dict[str, Tensor]:
    """Return ``state`` with the tensors of every layer replaced, in the same order."""
    result = {}
    for name, value in state.items():
        layer = layer_of(name, layers)
        if layer is None:
            result[name] = value
            continue
        result.update({f'{layer}.{leaf}': v for leaf, v in converted[layer].items()})
    return result


def _successor(name: str, state: dict[str, Tensor]) -> str:
    """Return the name of a tensor of the file after conversion; the first one, if it is split."""
    if name in state:
        return name
    layer, _, leaf = name.rpartition('.')
    part = leaf.partition('_')[0]  # mean_fixed → mean_choice, and back
    candidates = [f'{layer}.{part}_choice', f'{layer}.{part}_fixed']
    candidates += [f'{layer.rpartition(".")[0]}.{leaf}']  # IBN's halves → one, and back
    candidates += [f'{layer}.IN.{leaf}', f'{layer}.BN.{leaf}']
    return next((candidate for candidate in candidates if candidate in state), name)
