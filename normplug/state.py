"""Initial values of the parameters and buffers of a layer, and resetting to them."""

import warnings
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn

__all__ = ['RUNNING_STATS', 'ResettableState']

RUNNING_STATS = (
    'running_mean',
    'running_var',
    'running_cov',
    'running_wm',
    'num_batches_tracked',
)

Initial = float | Sequence


class ResettableState(nn.Module):
    """A layer that fills its parameters and buffers in one place, when built and when reset.

    Attributes:
        frozen: whether parameters are registered as buffers.
    """

    frozen = False
    _initial = MappingProxyType({})  # no annotation: TorchScript would read it

    def add_parameter(self, name: str, shape: tuple[int, ...], initial: Initial) -> None:
        """Register a parameter, or a buffer if the layer is frozen; see :meth:`set_initial`."""
        if self.frozen:
            self.register_buffer(name, torch.empty(shape))
        else:
            self.register_parameter(name, nn.Parameter(torch.empty(shape)))
        self.set_initial(name, initial)

    def add_state(
        self,
        name: str,
        shape: tuple[int, ...],
        initial: Initial,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Register a buffer; see :meth:`set_initial`.

        Model averaging (EMA, SWA) may average buffers too: the layer must work with any average of
        valid values of the buffer.
        """
        self.register_buffer(name, torch.empty(shape, dtype=dtype))
        self.set_initial(name, initial)

    def set_initial(self, name: str, initial: Initial) -> None:
        """Fill a parameter or buffer with ``initial``, now and at each reset.

        Args:
            name: of the parameter or buffer.
            initial: one value for all elements; or nested lists of those of the last axes.
        """
        self._initial = {**self._initial, name: initial}
        self._reset(name)

    def warn_of_other_values(
        self, state_dict: Mapping[str, Tensor], prefix: str, *names: str
    ) -> None:
        """Warn of buffers whose value in a checkpoint is not that of norm_cfg, which it replaces.

        Args:
            state_dict: of the checkpoint.
            prefix: of the layer's names in it.
            names: buffers of one number that are arguments of norm_cfg too.
        """
        for name in names:
            own = torch.tensor(self._initial[name])
            found = state_dict.get(prefix + name)
            if found is not None and found.to(own) != own:
                warnings.warn(
                    f'{type(self).__name__}: the {name} of the checkpoint, {float(found):g}, is '
                    f'taken in place of norm_cfg {name}={float(own):g}; to keep that, remove '
                    f'{name} from the file',
                    stacklevel=4,
                )

    def reset_parameters(self) -> None:
        """Reset parameters and buffers to those of a new layer; a frozen layer too.

        It has the name of the method in torch's layers. It also initializes a layer that was built
        on the meta device and got its memory from ``to_empty``. Device and dtype do not change.

        Raises:
            NotImplementedError: a parameter or buffer was registered by another method.
        """
        unknown = [n for n in (*self._parameters, *self._buffers) if n not in self._initial]
        if unknown:
            raise NotImplementedError(
                f'{type(self).__name__} cannot reset {", ".join(unknown)}: register parameters by '
                'add_parameter and buffers by add_state, which keep the initial value'
            )
        self._reset(*self._initial)

    def reset_running_stats(self) -> None:
        """Reset the running statistics, if there are any, to those of a new layer."""
        self._reset(*(name for name in RUNNING_STATS if name in self._initial))

    @torch.no_grad()
    def _reset(self, *names: str) -> None:
        for name in names:
            tensor, initial = getattr(self, name), self._initial[name]
            if isinstance(initial, Sequence):
                value = torch.tensor(initial, dtype=tensor.dtype, device=tensor.device)
                tensor.copy_(_sharded_like(tensor, value))
            else:
                tensor.fill_(initial)


def _sharded_like(tensor: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Return ``value``, sharded like ``tensor`` if FSDP 2 shards that."""
    if not hasattr(tensor, 'device_mesh'):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, tensor.device_mesh, tensor.placements, src_data_rank=None)
