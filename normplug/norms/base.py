"""The base of all norm types: parameters, running statistics, the mm contract, the forward."""

import warnings
from copy import deepcopy
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from normplug.dist import group_reducer
from normplug.norms.per_sample_gradients import PerSampleGradients
from normplug.norms.scripted import Scripted
from normplug.ops import Plan, Reducer, Rule, is_exporting, normalize, normalize_naive
from normplug.precision import small_dtype, working_dtype
from normplug.running import Tracked, Tracking, in_recomputation
from normplug.state import ResettableState

__all__ = ['BaseNorm', 'is_number']

_BATCH_NORM_NAMES = ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')


def is_number(value: object) -> bool:
    """Return whether ``value`` is a real number; True and False are none."""
    return isinstance(value, Real) and not isinstance(value, bool)


class BaseNorm(PerSampleGradients, Scripted, ResettableState):
    """A normalizer defined by a rule that maps (N, C) moments to a scale and an offset.

    A subclass defines :meth:`rule` and, if the rule takes more parameters than weight and bias,
    :meth:`rule_params`. The class does not inherit from ``torch.nn.modules.batchnorm._BatchNorm``:
    tools that fold, convert or revert batch norms would silently treat it as one.

    Args:
        num_features: C, the number of channels; at least 1.
        eps: added to the variance.
        momentum: weight of the new batch in the running statistics (PyTorch's convention);
            None for the average over all batches.
        frozen: always use the running statistics and train nothing. Parameters become buffers of
            the same names, which no optimizer, DDP or ``requires_grad`` loop can revive.
        virtual_batch_size: k, to take batch statistics over each k images in turn, as on ranks of
            k images each; it must divide N. None for all images of the rank. Running statistics
            follow the average over the groups.

    Attributes:
        weight, bias: γ and β, (C,).
        batch_from: the first channel whose batch statistics the rule uses; None if it uses none.
            A subclass for which it is not 0 sets it before it calls ``super().__init__``.
        instance_correction: instance variances are divided by H·W less this.
        running_mean, running_var: (C − batch_from,), initially 0 and 1.
        num_batches_tracked: (), int64.
        synchronized: whether batch statistics are those of all ranks' samples. True in a subclass
            of its own, which names BaseNorm as a base again: mmengine's ``init_cfg`` matches
            direct bases only. Without a process group, or in one of one rank, they stay local.
        process_group: the ranks to synchronize over (``torch.distributed.ProcessGroup``), set on
            the built layer; None for the default group.

        centred: whether the running statistics are a mean and the variance about it; if not, zeros
            and the mean square.
        remembers: whether training normalizes by more than this batch: by earlier ones, or by what
            other layers found.

    Raises:
        ValueError: an argument is out of range, or the input does not fit, by name.
    """

    _abbr_ = 'bn'  # mmcv names the layer by it, so that a BN checkpoint's `bn1.weight` fits
    _on_foreign_checkpoint = ''  # what then becomes of the layer, and what to do
    batch_from: int | None = 0
    instance_correction = 0
    synchronized = False
    centred = True
    remembers = False
    process_group = None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        *,
        frozen: bool = False,
        virtual_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        self._require(
            type(num_features) is int and num_features > 0,
            f'num_features must be a positive integer, got {num_features!r}',
        )
        self._require(
            isinstance(eps, Real) and 0 < eps < float('inf'),
            f'eps must be a positive number, got {eps!r}',
        )
        self._require(
            momentum is None or (isinstance(momentum, Real) and 0 <= momentum <= 1),
            f'momentum must lie in [0, 1] or be None, got {momentum!r}: it is the weight of the '
            'new batch, as in PyTorch, not of the old value',
        )
        self._require(isinstance(frozen, bool), f'frozen must be True or False, got {frozen!r}')
        self._require(
            virtual_batch_size is None
            or (type(virtual_batch_size) is int and virtual_batch_size > 0),
            f'virtual_batch_size must be a positive integer or None, got {virtual_batch_size!r}',
        )
        self._require(
            virtual_batch_size is None or self.batch_from is not None,
            'virtual_batch_size needs batch statistics, which this layer has none of',
        )
        self._require(
            virtual_batch_size is None or not self.synchronized,
            'virtual_batch_size splits a batch, and a synchronized layer joins the batches of all '
            f"ranks: use type='{self._local_name()}'",
        )
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.frozen = frozen  # before the first parameter
        self.virtual_batch_size = virtual_batch_size
        self.batch_from = self.batch_from  # of the instance: TorchScript looks at no class
        self.add_parameter('weight', (num_features,), 1.0)
        self.add_parameter('bias', (num_features,), 0.0)
        if self.batch_from is not None:
            self.add_state('running_mean', (num_features - self.batch_from,), 0.0)
            self.add_running_spread()
            self.add_state('num_batches_tracked', (), 0, torch.long)

    def add_running_spread(self) -> None:
        """Register the running statistic beside the mean."""
        self.add_state('running_var', (self.num_features - self.batch_from,), 1.0)

    def rule(self, x: Tensor) -> Rule:
        """Return the map from the moments of x and :meth:`rule_params` to scale and offset."""
        raise NotImplementedError

    def rule_params(self) -> tuple[Tensor, ...]:
        """Return the tensors that the rule takes after the moments."""
        return self.weight, self.bias

    def step_params(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return :meth:`rule_params` for this forward of x."""
        return self.rule_params()

    def forward(self, x: Tensor) -> Tensor:
        """Normalize x of shape (N, C) or (N, C, *spatial), up to 3 spatial axes, any N.

        The output has x's shape, dtype and memory format. Statistics are float64 on a CPU and
        float32 on a GPU: see :func:`normplug.precision.small_dtype`. They are float64 there too
        where ranks exchange them and where KN predicts them.
        """
        if torch.jit.is_scripting():
            return self.scripted(x)
        else:  # noqa: RET505 (what follows a return would be compiled too)
            if isinstance(x, torch.fx.Proxy):  # one call in a traced graph, as torch.nn's are
                name = x.tracer.path_of_module(self)
                return x.tracer.create_proxy('call_module', name, (x,), {})
            if is_exporting():
                return self._exported(x)
            self._check_input(x)
            plan = self.plan(x)
            params = self.by_instance(self.step_params(x), x, plan)
            return normalize(x, plan, params, self.running(), self.reducer()).y

    def plan(self, x: Tensor) -> Plan:
        """What is computed of x, in training or in evaluation."""
        rule = self.rule(x)
        if not self.takes_batch_statistics(x):
            return Plan(rule, None, self.instance_correction, dtype=small_dtype(x))
        dtype = small_dtype(x, exact=self.reducer() is not None)
        group = self.virtual_batch_size
        self._require(
            group is None or x.shape[0] % group == 0,
            f'virtual_batch_size={group} does not divide the batch of {x.shape[0]}: change one of '
            'them; of images, drop the last, smaller batch (drop_last=True of the dataloader); '
            'heads on RoIs, whose number varies, need a norm_cfg without it',
        )
        tracking = None if in_recomputation() else self.tracking(x)
        return Plan(rule, self.batch_from, self.instance_correction, tracking, group, dtype=dtype)

    def running(self) -> Tracked | None:
        """The running statistics, if there are any."""
        if self.batch_from is None:
            return None
        return Tracked(self.running_mean, self.running_var, self.num_batches_tracked)

    def _exported(self, x: Tensor) -> Tensor:
        """Normalize in evaluation by plain operators, without checks of a symbolic shape."""
        if self.training and not self.frozen:
            raise ValueError(
                f'{type(self).__name__} is in training mode, and an exported graph would keep that '
                "batch's statistics: call model.eval() before exporting or tracing"
            )
        # Few runtimes have float64.
        plan = self.plan(x)._replace(dtype=working_dtype(x))
        return normalize_naive(x, plan, self.rule_params(), self.running())

    @property
    def moves_statistics(self) -> bool:
        """Whether training updates running statistics of this layer."""
        return self.batch_from is not None and not self.frozen

    def takes_batch_statistics(self, x: Tensor) -> bool:
        """Whether x's own batch statistics are used (and recorded), not the running ones.

        An empty batch has no statistics: the running ones are used instead, and nothing is
        recorded. A synchronized layer must not decide by the samples of its own rank: other ranks
        would wait for it.
        """
        if not (self.training and self.moves_statistics):
            return False
        return x.shape[0] > 0 or self.reducer() is not None

    def reducer(self) -> Reducer | None:
        """Return the reducer of batch statistics over ranks; None if they are local."""
        return group_reducer(self.process_group) if self.synchronized else None

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without hooks, which belong to the training that set them."""
        return {k: v for k, v in self.__dict__.items() if k != 'sample_grad_hooks'}

    def __deepcopy__(self, memo: dict) -> 'BaseNorm':
        """Copy the layer, as averaging hooks do; the copy shares the process group."""
        memo[id(self.process_group)] = self.process_group
        twin = memo[id(self)] = self.__new__(type(self))
        twin.__setstate__(deepcopy(self.__getstate__(), memo))
        return twin

    def tracking(self, x: Tensor) -> Tracking:
        """How running statistics follow those of x."""
        return Tracking(self.momentum, self.tracks_unbiased(x))

    def tracks_unbiased(self, x: Tensor) -> bool:
        """Whether the running variance gets Bessel's correction."""
        return True

    def extra_repr(self) -> str:
        """Return the arguments for ``repr``."""
        frozen = ', frozen=True' if self.frozen else ''
        group = self.virtual_batch_size
        virtual = '' if group is None else f', virtual_batch_size={group}'
        return f'{self.num_features}, eps={self.eps}, momentum={self.momentum}{frozen}{virtual}'

    def _local_name(self) -> str:
        """The type that is this one on a rank of its own."""
        return type(self).__name__.removeprefix('Sync').replace('PortableSync', 'Ghost')

    def _require(self, condition: bool, message: str) -> None:
        if not condition:
            raise ValueError(f"norm_cfg=dict(type='{type(self).__name__}'): {message}")

    def _check_input(self, x: Tensor) -> None:
        name = type(self).__name__
        if not isinstance(x, Tensor):
            raise TypeError(f'{name} takes a tensor, got {type(x).__name__}')
        if x.layout is not torch.strided:
            raise ValueError(f'{name} takes dense tensors, got {x.layout}: call .to_dense() before')
        if not 2 <= x.dim() <= 5:
            raise ValueError(
                f'{name} takes (N, C) or (N, C, *spatial) with up to 3 spatial axes, '
                f'got an input of {x.dim()} axes: {tuple(x.shape)}'
            )
        if x.shape[1] != self.num_features:
            raise ValueError(
                f'{name} was built for {self.num_features} channels (num_features), '
                f'got an input of {x.shape[1]}: {tuple(x.shape)}'
            )
        if not x.is_floating_point():
            raise ValueError(
                f'{name} takes floating-point input, got {x.dtype}; convert it, e.g. by .float()'
            )
        if x.device != self.weight.device:
            raise ValueError(
                f'{name} is on {self.weight.device}, but its input is on {x.device}: '
                'move one of them by .to(device)'
            )
        if x.shape[0] > 0 and x.numel() == 0:
            raise ValueError(f'{name} got an input without pixels: {tuple(x.shape)}')

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        """Accept the layouts of the released checkpoints, and warn about a BN checkpoint.

        Released parameters are (1, C, 1, 1) and released buffers (1, C, 1); ours are (C,).
        """
        for name, own in self.state_dict(keep_vars=True).items():
            value = state_dict.get(prefix + name)
            if isinstance(value, Tensor) and value.dim() > 1 and value.numel() == own.numel():
                state_dict[prefix + name] = value.reshape(own.shape)
        # Released layers do not count their batches.
        if self.batch_from is not None and prefix + 'running_mean' in state_dict:
            state_dict.setdefault(prefix + 'num_batches_tracked', torch.zeros((), dtype=torch.long))
        if prefix + 'weight' in state_dict and any(
            prefix + name not in state_dict for name in self.own_names()
        ):
            self._warn_of_foreign_checkpoint()
        super()._load_from_state_dict(state_dict, prefix, *args)

    def own_names(self) -> tuple[str, ...]:
        """Return the names in the state dict that a batch norm does not have."""
        return tuple(name for name in self.state_dict() if name not in _BATCH_NORM_NAMES)

    def _warn_of_foreign_checkpoint(self) -> None:
        warnings.warn(
            f'{type(self).__name__} layers are loaded from the checkpoint of another normalizer. '
            f'{self._on_foreign_checkpoint}',
            stacklevel=3,
        )
