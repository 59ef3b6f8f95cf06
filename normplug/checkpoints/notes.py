"""Tell the user of a converted checkpoint which config computes the same."""

from __future__ import annotations

from .layers import HARD_SN, Entries
from .names import is_released
from .source import Source, few
from .whitening import WHITENING, options_of

__all__ = ['notes_on']


def notes_on(
    source: Source,
    layers: dict[str, Entries],
    plan: dict[str, str],
    converted: dict[str, Entries],
    to: str,
) -> list[str]:
    """Return the lines for the report.

    Args:
        source: the file.
        layers: norm layer → its tensors in the file.
        plan: norm layer → what it becomes.
        converted: norm layer → its tensors then, ours.
        to: the layout of the result.
    """
    kinds = set(plan.values())
    if to == 'released':
        return _put_aside(kinds)
    released = is_released(source.state)
    lines = [
        _norm_cfg(kind, layers, plan, released)
        for kind in sorted(kinds - {'BN', 'IBN'} - WHITENING.keys())
    ]
    for kind in sorted(kinds & WHITENING.keys()):
        own = [name for name, become in plan.items() if become == kind]
        lines.append(_whitening_cfg(kind, [converted[n] for n in own], [layers[n] for n in own]))
    if released and any('radius' in entries for entries in layers.values()):
        lines += [
            'the released SSN network pools its stem without padding, and mm with: for the '
            'released features, set on the built backbone '
            'maxpool = torch.nn.MaxPool2d(3, stride=2, ceil_mode=True)'
        ]
        lines += _ssn(layers)
    if HARD_SN in kinds:
        lines += _ties(layers)
    for block in ('a', 'b'):
        if _is_ibn_net(block, source):
            cfg = {'a': "('a', 'a', 'a', None)", 'b': "('b', 'b', None, None)"}[block]
            lines.append(f"IBN-Net-{block}: backbone=dict(type='IBNResNet', ibn_cfg={cfg}, ...)")
    return lines


def _norm_cfg(kind: str, layers: dict[str, Entries], plan: dict[str, str], released: bool) -> str:
    name = 'SSN' if kind == HARD_SN else kind
    own = [layers[layer] for layer, become in plan.items() if become == kind]
    without_bn = any(len(e.get('mean_weight', ())) == 2 and 'running_mean' not in e for e in own)
    options = f"type='{name}'" + ', using_bn=False' * without_bn
    if not released:
        return f'use it with norm_cfg=dict({options})'
    momentum = '0.003' if 'SSN' in kind else '0.1'
    elsewhere = '' if 'SSN' in kind else '; momentum=0.003 in the released detection code'
    return (
        f'to compute as released: norm_cfg=dict({options}, released_statistics=True, '
        f'momentum={momentum}), norm_eval=False{elsewhere}'
    )


def _whitening_cfg(kind: str, own: list[Entries], before: list[Entries]) -> str:
    # A layer of fewer channels than a block has is one block.
    shown = [options_of(kind, entries) for entries in own]
    options = max(shown, key=lambda options: next(iter(options.values()), 0))
    # Of a released layer the statistics, or what GW has, are no vectors.
    released = any(e.get('running_mean', e['weight']).dim() > 1 for e in before)
    if released and kind == 'SW':
        options |= {'released': True, 'momentum': 0.01}
    cfg = ', '.join([f"type='{kind}'", *(f'{name}={value}' for name, value in options.items())])
    tell = 'num_groups (or num_channels) and T' if kind == 'GW' else 'T'
    lead = 'to compute as released' if released else 'use it with'
    as_trained = f'; {tell} as it was trained, which a file does not tell' * released
    return f'{lead}{":" * released} norm_cfg=dict({cfg}){as_trained}'


def _ssn(layers: dict[str, Entries]) -> list[str]:
    """Return how many ratios are decided, and which decided ones are not one-hot."""
    decided, odd = 0, []
    for name, entries in layers.items():
        for part in ('mean', 'var'):
            if entries.get(f'{part}_fixed', 0):
                decided += 1
                if entries[f'{part}_weight'].sort().values.tolist()[-2:] != [0, 1]:
                    odd.append(f'{name}.{part}_weight')
    lines = [f'{decided} of {2 * len(layers)} ratios are decided and stay as they are']
    if odd:
        lines.append(
            f'{len(odd)} of them are not one-hot in the file ({few(odd)}); their largest counts'
        )
    return lines


def _ties(layers: dict[str, Entries]) -> list[str]:
    """Return which SN layers have tied ratios."""
    tied = [
        f'{name}.{part}_weight'
        for name, entries in layers.items()
        for part in ('mean', 'var')
        if (logits := entries.get(f'{part}_weight')) is not None
        and int((logits == logits.max()).sum()) > 1
    ]
    if not tied:
        return []
    return [f'{len(tied)} ratios are tied, and the first is chosen: {few(tied)}']


def _is_ibn_net(block: str, source: Source) -> bool:
    mark = {'a': 'bn1.IN.weight', 'b': 'IN.weight'}[block]
    above = {name[: -len(mark) - 1] for name in source.state if name.endswith('.' + mark)}
    return any(f'{block}.conv1.weight' in source.state for block in above)


def _put_aside(kinds: set[str]) -> list[str]:
    if not {'SN', 'SSN', 'SW', 'IterNorm'} & kinds:
        return []
    return [
        "released layers do not count batches, and a decided SSN's logits are its choice: what "
        'they have no place for is kept beside the state_dict, for the way back'
    ]
