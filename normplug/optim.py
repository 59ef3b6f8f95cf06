"""Set learning rates and weight decays of normalizers by mmengine's ``paramwise_cfg``."""

import difflib
from collections import Counter
from numbers import Real

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from normplug.norms import BaseNorm

__all__ = ['NormOptimWrapperConstructor']

_KEYS = (
    'bias_decay_mult',
    'bias_lr_mult',
    'bypass_duplicate',
    'custom_keys',
    'dcn_offset_lr_mult',
    'dwconv_decay_mult',
    'flat_decay_mult',
    'norm_bias_lr_mult',
    'norm_decay_mult',
    'ratio_decay_mult',
    'ratio_lr_mult',
)


# The classes that mmengine's constructor treats as norms.
_NORMS = (_BatchNorm, _InstanceNorm, nn.GroupNorm, nn.LayerNorm)


class _AsLayerNorm(nn.LayerNorm):
    """The parameters of another module, in a class that mmengine recognizes as a norm."""

    def __init__(self, module: nn.Module) -> None:
        nn.Module.__init__(self)
        self._parameters = module._parameters
        self._modules = module._modules


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class NormOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """mmengine's default constructor, which also knows the normalizers of this package.

    mmengine's options apply to them as to torch's norms; in particular ``norm_decay_mult`` applies
    to all their parameters. There are three more options; ``custom_keys`` takes precedence over
    all of them. Two are for the parameters that a batch norm does not have (SN's logits):

    * ``ratio_lr_mult``: multiplies the learning rate.
    * ``ratio_decay_mult``: multiplies the weight decay, instead of ``norm_decay_mult``.

    One is for beta of every norm, including torch's. mmengine's ``bias_lr_mult`` does not apply to
    beta; Detectron's doubled learning rate of biases does:

    * ``norm_bias_lr_mult``: multiplies the learning rate.

    Args:
        optim_wrapper_cfg: config of the optimizer wrapper, with ``optimizer`` in it.
        paramwise_cfg: the options.

    Raises:
        ValueError: an option is unknown or not a number from 0, or ``optimizer`` does not have the
            value that it multiplies.
    """

    def _validate_cfg(self) -> None:
        super()._validate_cfg()
        for key in self.paramwise_cfg:
            if key not in _KEYS:
                similar = difflib.get_close_matches(key, _KEYS, n=1)
                hint = f'did you mean {similar[0]}?' if similar else f'known: {", ".join(_KEYS)}'
                raise ValueError(f'optim_wrapper.paramwise_cfg has no option {key!r}; {hint}')
        for option, base in (
            ('ratio_lr_mult', 'lr'),
            ('ratio_decay_mult', 'weight_decay'),
            ('norm_bias_lr_mult', 'lr'),
        ):
            mult = self.paramwise_cfg.get(option)
            if mult is None:
                continue
            if not (isinstance(mult, Real) and mult >= 0):
                raise ValueError(
                    f'optim_wrapper.paramwise_cfg.{option} must be a number from 0, got {mult!r}'
                )
            if self.optimizer_cfg.get(base) is None:
                raise ValueError(
                    f'optim_wrapper.paramwise_cfg.{option} multiplies optim_wrapper.optimizer.'
                    f'{base}, which is not given'
                )

    def add_params(
        self,
        params: list[dict],
        module: nn.Module,
        prefix: str = '',
        is_dcn_module: int | float | None = None,
    ) -> None:
        """Append a group per parameter of ``module``, recursively; see mmengine's method."""
        ours = isinstance(module, BaseNorm)
        start = len(params)
        as_norm = _AsLayerNorm(module) if ours else module
        super().add_params(params, as_norm, prefix, is_dcn_module)
        if not isinstance(module, (BaseNorm, *_NORMS)):
            return
        ratios = module.own_names() if ours else ()
        names = {id(p): name for name, p in module.named_parameters(recurse=False)}
        for group in params[start:]:
            name = names.get(id(group['params'][0]))
            if name == 'bias':
                self._set_option(group, f'{prefix}.{name}', 'lr', 'norm_bias_lr_mult')
            elif name in ratios:
                self._set_option(group, f'{prefix}.{name}', 'lr', 'ratio_lr_mult')
                self._set_option(group, f'{prefix}.{name}', 'weight_decay', 'ratio_decay_mult')

    def _set_option(self, group: dict, full_name: str, key: str, option: str) -> None:
        mult = self.paramwise_cfg.get(option)
        if mult is None or any(k in full_name for k in self.paramwise_cfg.get('custom_keys', ())):
            return
        group[key] = (self.base_lr if key == 'lr' else self.base_wd) * mult
        print_log(
            f'paramwise_options -- {full_name}:{key}={group[key]} by {option}', logger='current'
        )

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the optimizer wrapper, and log how many tensors have which options."""
        optim_wrapper = super().__call__(model)
        counts: Counter[tuple] = Counter()
        for group in optim_wrapper.optimizer.param_groups:
            counts[group['lr'], group.get('weight_decay', 0)] += len(group['params'])
        for (lr, decay), tensors in counts.items():
            print_log(
                f'optimizer: {tensors} tensors with lr {lr:g}, weight decay {decay:g}',
                logger='current',
            )
        return optim_wrapper
