"""The part of a norm that training links to what runs before it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

__all__ = ['Linked']


class Linked:
    """A part of a subclass of :class:`normplug.norms.base.BaseNorm`, named before it.

    Attributes:
        link: what :func:`normplug.link_kalman` found before the layer; None in a layer that it did
            not see, and in copies.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.link = None

    def _check_input(self, x: Tensor) -> None:
        super()._check_input(x)
        self._require(
            self.link is not None or not self._needs_link(x),
            'this layer was never linked to its predecessor, or is a copy: add '
            "custom_hooks=[dict(type='KalmanLinkHook')] to the config, or call "
            'normplug.link_kalman(model, ...) before training',
        )

    def _needs_link(self, x: Tensor) -> bool:
        return self.takes_batch_statistics(x)

    def __prepare_scriptable__(self) -> Linked:
        """Return what ``torch.jit.script`` compiles: this layer, unless it is linked."""
        self._require(
            self.link is None,
            'this layer is linked, by hooks of its model that TorchScript does not take: build the '
            'model anew, load its state dict and give that to torch.jit.script, or use '
            'torch.jit.trace',
        )
        return super().__prepare_scriptable__()

    # A link is no part of the layer: it belongs to the model that was traced. Copies have none.
    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the link."""
        return {**super().__getstate__(), 'link': None}
