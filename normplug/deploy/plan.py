"""Decide which native layer each norm becomes, and into which convolution it is folded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from normplug.models import CenConv2d
from normplug.models.references import References
from normplug.norms import BRN, CBN, KN, MABN, PN, SSN, BaseNorm, GhostBN, PortableSyncBN
from normplug.norms.whitening import WhiteningNorm
from normplug.own_code import hooks_of, own_code

from .dataflow import Dataflow
from .description import names_of

__all__ = ['DeployPlan', 'make_plan']

# In evaluation.
_BATCH_NORMS = (PortableSyncBN, GhostBN, KN, PN, BRN, MABN, CBN)
_NATIVE = {'bn': 'BatchNorm{}d', 'in': 'InstanceNorm{}d', 'ln': 'GroupNorm'}


@dataclass
class DeployPlan:
    """What becomes of a model; names are those of its layers.

    Attributes:
        norm_cfgs: of each norm that becomes a native layer.
        folded: the norms that go into a convolution, with that convolution.
        kept: why each other norm stays, or is not folded.
    """

    norm_cfgs: dict[str, dict] = field(default_factory=dict)
    folded: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    kinds: Counter = field(default_factory=Counter)

    def lines(self) -> list[str]:
        """Return lines: how many layers became what, and which stay for which reason."""
        lines = [f'{number} {kind}' for kind, number in self.kinds.items()]
        reasons: dict[str, list[str]] = {}
        for name, reason in self.kept.items():
            reasons.setdefault(reason, []).append(name)
        return lines + [
            f'{len(names)} stay: {reason}: {", ".join(names)}' for reason, names in reasons.items()
        ]


def make_plan(model: nn.Module, flow: Dataflow, must_fold: Iterable[str] = ()) -> DeployPlan:
    """Decide for every norm of ``model``.

    Args:
        model: a trained model; not changed.
        flow: its dataflow in inference.
        must_fold: shell patterns on the names of norms that have to be folded.

    Raises:
        ValueError: one of those cannot be folded, or a pattern matches no norm.
    """
    plan, references = DeployPlan(), References(model)
    all_names = names_of(model)
    owners = Counter(id(p) for layer in all_names for p in layer.parameters(recurse=False))
    for layer, names in all_names.items():
        if not isinstance(layer, (BaseNorm, _BatchNorm)):
            continue
        name, kind = names[0], type(layer).__name__
        native, why_not = _native(layer, flow, references)
        conv, why_not_folded = None, None
        if native in ('bn', 'linear'):
            conv, why_not_folded = _convolution(layer, flow, owners)
        if conv is not None:
            plan.folded[name] = all_names[conv][0]
            plan.kinds[f'{kind} folded into a convolution'] += 1
        elif native is None:
            plan.kept[name] = f'{kind}, {why_not}'
            plan.kinds[f'{kind} as before'] += 1
        elif native == 'linear' or isinstance(layer, _BatchNorm):
            plan.kept[name] = f'{kind}, {why_not_folded}'
            plan.kinds[f'{kind} as before'] += 1
        else:
            axes = len(flow.shapes[layer][0]) - 2
            plan.norm_cfgs[name] = _norm_cfg(native, layer, axes)
            plan.kinds[f'{kind} → {_NATIVE[native].format(axes)}'] += 1
            if native == 'bn':
                plan.kept[name] = f'{_NATIVE[native].format(axes)}, {why_not_folded}'
    _check_folded(plan, must_fold)
    return plan


def _native(layer: nn.Module, flow: Dataflow, references: References) -> tuple[str | None, str]:
    """Return 'bn', 'in' or 'ln' if a native layer computes the same; else None and why not.

    A whitening that is one map for every input is 'linear': no native norm, but it can be folded.
    """
    if layer not in flow.shapes:
        return None, 'not part of the inference'
    own = own_code(layer, 'rule', 'rule_params', 'instance_correction', 'mixes_instances')
    own = own or references.beside_names(layer)
    if own:
        return None, f'which {own}'
    if isinstance(layer, _BatchNorm):
        whole = layer.affine and layer.track_running_stats
        return ('bn', '') if whole else (None, 'without weights or running statistics')
    if isinstance(layer, WhiteningNorm):
        if layer.mixes_instances():
            return None, 'which whitens by the covariances of its own input'
        return 'linear', ''
    if isinstance(layer, CBN) and not layer.eps_inside:
        return None, 'eps_inside=False adds eps outside of the root'
    if not isinstance(layer, (SSN, *_BATCH_NORMS)):
        return None, 'which has no native layer'
    if {len(shape) for shape in flow.shapes[layer]} not in ({4}, {5}):
        return None, 'its input has other axes than (N, C, H, W) or (N, C, T, H, W)'
    if isinstance(layer, _BATCH_NORMS):
        return 'bn', ''
    if not layer.is_decided():
        return None, 'undecided (its ratios are not one-hot yet)'
    mean, var = (
        layer.normalizers[int(choice.argmax())] for choice in (layer.mean_choice, layer.var_choice)
    )
    if mean != var:
        return None, f'mixed (mean by {mean}, variance by {var})'
    if layer.released_statistics and var != 'bn':
        return None, 'released_statistics=True divides variances by one less than the pixels'
    if var == 'in' and any(shape[2:].numel() == 1 for shape in flow.shapes[layer]):
        return None, 'instance norm of 1x1 maps, which InstanceNorm refuses'
    return var, ''


def _norm_cfg(native: str, layer: BaseNorm, axes: int) -> dict:
    suffix = {2: '', 3: '3d'}[axes]
    own = {'bn': dict(type=f'BN{suffix}'), 'in': dict(type=f'IN{suffix}', affine=True)}
    own['ln'] = dict(type='GN', num_groups=1)
    return {**own[native], 'eps': layer.eps}


def _convolution(
    norm: nn.Module, flow: Dataflow, owners: Counter
) -> tuple[nn.Module | None, str | None]:
    """Return the convolution into which ``norm`` can be folded; else None and why not."""
    sources = set(flow.sources[norm])
    conv = sources.pop()
    if sources:
        return None, 'not folded: it normalizes the outputs of several layers'
    if conv is None:
        return None, 'not folded: its input is not the output of a convolution'
    # Centring commutes with a factor of each output channel.
    own = '' if type(conv) is CenConv2d else own_code(conv)
    if own := own or hooks_of(conv):
        return None, f'not folded: {type(conv).__name__} {own}'
    if own := hooks_of(norm):
        return None, f'not folded: it {own}'
    if any(owners[id(p)] > 1 for p in conv.parameters()) or conv in flow.weight_readers:
        return None, "not folded: the convolution's weight is used elsewhere too"
    if isinstance(norm, WhiteningNorm) and norm.num_features // conv.groups % norm.size:
        return None, (
            f'not folded: it mixes {norm.size} channels each, across the '
            f"convolution's {conv.groups} groups"
        )
    for output in flow.outputs[conv]:
        if output.norms != [norm] or output.other_readers:
            others = [type(other).__name__ for other in output.norms if other is not norm]
            others += output.other_readers or ['nothing'] * (not output.norms)
            readers = ', '.join(dict.fromkeys(others or ['this norm again']))
            return None, f"not folded: the convolution's output is used by {readers} too"
    return conv, None


def _check_folded(plan: DeployPlan, must_fold: Iterable[str]) -> None:
    names = [*plan.folded, *plan.kept, *plan.norm_cfgs]
    for pattern in must_fold:
        matching = list(dict.fromkeys(name for name in names if fnmatchcase(name, pattern)))
        if not matching:
            raise ValueError(f'--fold {pattern}: the model has no such norm layer')
        for name in matching:
            if name not in plan.folded:
                reason = plan.kept.get(name, f'it becomes {plan.norm_cfgs.get(name)}')
                raise ValueError(f'--fold {pattern}: {name} cannot be folded: {reason}')
