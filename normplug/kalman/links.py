"""Link layers of a model to what runs before them: KN to other KN, CBN to convolutions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from torch import nn
from torch.utils.hooks import RemovableHandle

from normplug.kalman.convolved import (
    LinkToConvolution,
    check_runs_once,
    links_of,
    reason_for_none,
)
from normplug.kalman.snapshot import undisturbed
from normplug.kalman.states import MissingStateError, Node, Posterior, State
from normplug.kalman.trace import Observation, Trace
from normplug.norms.cbn import CBN
from normplug.norms.kn import KN
from normplug.own_code import own_code
from normplug.stats import Moments

__all__ = ['LinkReport', 'link_kalman', 'refuse_checkpointing']

# OpenMMLab's names for the parts that a model is put together from.
_PART = re.compile(r'backbone|neck|head|.*_head')
_AGAIN = 'Link the model again: normplug.link_kalman(model, ...)'
_handles: WeakKeyDictionary[nn.Module, tuple[RemovableHandle, ...]] = WeakKeyDictionary()


class LinkReport(NamedTuple):
    """The result of linking one layer.

    Attributes:
        name: name of the layer in the model.
        predecessors: of a KN, the layers from whose posteriors its prediction is computed; of a
            CBN, its convolution; none for a plain batch norm.
        through: the convolutions on a KN's path, from the farthest to the nearest.
        reason: why there is no predecessor; '' if there is one.
    """

    name: str
    predecessors: tuple[str, ...]
    through: tuple[str, ...]
    reason: str

    def __str__(self) -> str:
        """Return a line for the log."""
        if self.reason:
            return f'{self.name}: plain batch norm, {self.reason}'
        beside = self.name.rpartition('.')[0] + '.'
        names = ', '.join(_short(name, beside) for name in self.through)
        through = f' through {names}' if names else ''
        return f'{self.name} ← {" + ".join(self.predecessors)}{through}'


class Session:
    """The running forward of a linked model: states exist until it ends.

    Copies of the model, also pickled ones, have no session.

    Attributes:
        is_open: whether the model is in its forward.
    """

    def __init__(self, nodes: Iterable[Node]) -> None:
        self.is_open = False
        self._nodes = tuple(nodes)

    def watch(self, model: nn.Module) -> tuple[RemovableHandle, ...]:
        """Open and close with the forwards of ``model``."""
        return (
            model.register_forward_pre_hook(self.open),
            model.register_forward_hook(self.close, always_call=True),
        )

    def open(self, *_: Any) -> None:
        """Allow states to pass from here on."""
        self.is_open = True

    def close(self, *_: Any) -> None:
        """Drop the states."""
        self.is_open = False
        for node in self._nodes:
            node.forget()

    def __deepcopy__(self, memo: dict) -> Session:
        """Return a session without nodes."""
        return Session(())

    def __reduce__(self) -> tuple:
        """Return a session without nodes."""
        return Session, ((),)


class Link:
    """A layer's place among the others: a :class:`normplug.norms.kn.KalmanLink`."""

    def __init__(
        self,
        model: nn.Module,
        name: str,
        posterior: Posterior,
        prior: Node | None,
        session: Session,
    ) -> None:
        self._model, self._name, self.session = model, name, session
        self._posterior, self._prior = posterior, prior
        self._convolutions = [] if prior is None else list(prior.convolutions())
        self._leaves = set() if prior is None else set(prior.leaves())
        self.successors: list[KN] = []
        self.is_first = prior is None

    def predict(self, sampled: bool) -> Moments:
        if not self.session.is_open:
            raise RuntimeError(
                f'KN layer {self._name} runs outside of the forward of the '
                f'{type(self._model).__name__} that was linked, so it gets no states. Call that '
                'model in training, or link the one that you call: normplug.link_kalman(model, ...)'
            )
        for node in self._convolutions:
            if _module(self._model, node.name) is not node.conv:
                raise RuntimeError(
                    f'KN layer {self._name} was linked through {node.name}, which was replaced '
                    f'since. {_AGAIN}'
                )
        return self._state(self._prior, sampled)

    def predecessor(self) -> Moments | None:
        return self._state(*self._leaves) if len(self._leaves) == 1 else None

    def _state(self, node: Node, sampled: bool = False) -> Moments:
        try:
            return node.state(sampled).moments
        except MissingStateError as error:
            raise RuntimeError(
                f'KN layer {self._name} is linked to {error}, which has not run before it in this '
                f'forward: it was replaced, or the model computes something else now. {_AGAIN}'
            ) from None

    def post(self, posterior: Moments, size: tuple[int, ...]) -> None:
        if self.session.is_open:
            self._posterior.set(State(posterior, size))

    def is_awaited(self) -> bool:
        return any(layer.training and not layer.frozen for layer in self.successors)


def link_kalman(model: nn.Module, forward: Callable[[], Any]) -> list[LinkReport]:
    """Link the KN and CBN layers of ``model`` by one forward of it; call it once before training.

    It follows convolutions, elementwise functions of one tensor and of parameters of its channels
    (activations), max and average pooling, sums and concatenations. A chain of KN ends at any other
    operation, at a layer that runs several times in a forward, and at the border between two parts
    of an OpenMMLab model (backbone, neck, each head). A CBN is linked to the convolution whose
    output is its input. Linking again replaces the links. Copies of the model (deepcopy, pickle)
    have no links.

    Args:
        model: the model, on its device and in training mode. Its buffers and the random numbers do
            not change. States are dropped at the end of each of its forwards.
        forward: runs the model like a training step, on a batch of any size, for example
            ``lambda: model(images)``.

    Returns:
        The result for each layer, in the order of ``model.named_modules()``; empty without both.

    Raises:
        ValueError: KN layers under activation checkpointing (``with_cp=True``).
        SharedLayerError: a CBN layer that trains runs several times in the forward.
    """
    layers = {name: m for name, m in model.named_modules() if isinstance(m, (KN, CBN))}
    if not layers:
        return []
    refuse_checkpointing(model)
    kn = {name: layer for name, layer in layers.items() if isinstance(layer, KN)}
    cbn = {name: layer for name, layer in layers.items() if isinstance(layer, CBN)}
    before = {name: layer.link for name, layer in layers.items()}
    for name, layer in kn.items():
        layer.link = Link(model, name, Posterior(name), None, Session(()))
    for name, layer in cbn.items():
        layer.link = LinkToConvolution(name)
    trace = Trace(model)
    try:
        with undisturbed(model), trace.watch():
            forward()
        check_runs_once(cbn, trace)
    except BaseException:
        for name, layer in layers.items():
            layer.link = before[name]
        raise
    session = Session(_nodes(trace))
    links: dict[str, Link | LinkToConvolution] = {}
    reports: dict[str, LinkReport] = {}
    for name, layer in kn.items():
        seen = trace.observations.get(name)
        reason = _reason(name, layer, seen, trace, kn)
        links[name] = Link(
            model,
            name,
            Posterior(name) if seen is None else seen.posterior,
            None if reason else seen.prior,
            session,
        )
        reports[name] = _report(name, None if reason else seen.prior, reason)
    for report in reports.values():
        for predecessor in report.predecessors:
            links[predecessor].successors.append(kn[report.name])
    convolutions = {}
    for name, layer in cbn.items():
        reason = reason_for_none(name, layer, trace)
        convolutions[name] = None if reason else trace.convolutions[name]
        found = () if reason else convolutions[name][:1]
        reports[name] = LinkReport(name, found, (), reason)
    for handle in _handles.pop(model, ()):
        handle.remove()
    links_to_convolutions, handles = links_of(cbn, convolutions)
    for name, link in (links | links_to_convolutions).items():
        layers[name].link = link
    _handles[model] = (*session.watch(model), *handles)
    return [reports[name] for name in layers]


def _report(name: str, prior: Node | None, reason: str) -> LinkReport:
    if prior is None:
        return LinkReport(name, (), (), reason)
    predecessors = dict.fromkeys(leaf.name for leaf in prior.leaves())
    through = dict.fromkeys(node.name for node in prior.convolutions())
    return LinkReport(name, tuple(predecessors), tuple(reversed(through)), '')


def _reason(
    name: str, layer: KN, seen: Observation | None, trace: Trace, layers: dict[str, KN]
) -> str:
    """Return why a layer is a plain batch norm; '' if it is not."""
    if seen is None:
        return 'it did not run in the forward that was followed'
    if name in trace.shared:
        return 'it runs several times in a forward'
    own = own_code(layer)
    if own:
        return f'{type(layer).__name__} {own}'
    if seen.prior is None:
        end = f': the path ends at {seen.lost}' if seen.lost else ''
        return f'no normalizer before it could be followed to its input{end}'
    for leaf in seen.prior.leaves():
        before = layers[leaf.name]
        if leaf.name in trace.shared:
            return f'{leaf.name} before it runs several times in a forward'
        if _part_of(leaf.name) != _part_of(name):
            return f'{leaf.name} before it is in another part of the model'
        if before.synchronized != layer.synchronized:
            return f'of it and {leaf.name} before it, only one is synchronized'
    return ''


def _part_of(name: str) -> str:
    """Return the innermost part of an OpenMMLab model that contains a layer."""
    segments = name.split('.')
    last = max((i for i, segment in enumerate(segments) if _PART.fullmatch(segment)), default=-1)
    return '.'.join(segments[: last + 1])


def refuse_checkpointing(model: nn.Module) -> None:
    """Raise ``ValueError`` if a part of ``model`` with KN is recomputed in backward."""
    for name, module in model.named_modules():
        if getattr(module, 'with_cp', False) and any(isinstance(m, KN) for m in module.modules()):
            raise ValueError(
                f'{name or type(module).__name__}: with_cp=True runs its KN layers again in '
                'backward, when the states of the layers before are gone: set with_cp=False'
            )


def _module(model: nn.Module, name: str) -> nn.Module | None:
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None


def _short(name: str, beside: str) -> str:
    """Return the short name of a module near another one; never a bare index."""
    short = name.removeprefix(beside)
    return '.'.join(name.split('.')[-2:]) if short.isdigit() else short


def _nodes(trace: Trace) -> set[Node]:
    nodes: set[Node] = set()
    waiting: list[Node | None] = []
    for seen in trace.observations.values():
        waiting += seen.prior, seen.posterior
    while waiting:
        node = waiting.pop()
        if node is not None and node not in nodes:
            nodes.add(node)
            waiting += node.parts
    return nodes
