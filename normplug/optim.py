"""Learning rates and weight decays of normalizers, by mmengine's ``paramwise_cfg``."""

import difflib
from collections import Counter
from numbers import Real

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

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
    'norm_decay_mult',
    'ratio_decay_mult',
    'ratio_lr_mult',
)


class _AsLayerNorm(nn.LayerNorm):
    """The parameters of another module, in a class that mmengine knows for a norm."""

    def __init__(self, module: nn.Module) -> None:
        nn.Module.__init__(self)
        self._parameters = module._parameters
        self._modules = module._modules


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class NormOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """mmengine's default constructor, which also knows the normalizers of this package.

    Its options treat them as they treat torch's norms; in particular ``norm_decay_mult`` reaches
    all their parameters. Two options more, for the parameters that a batch norm does not have
    (SN's logits), both overruled by ``custom_keys``:

    * ``ratio_lr_mult``: times the learning rate.
    * ``ratio_decay_mult``: times the weight decay, instead of ``norm_decay_mult``.

    Args:
        optim_wrapper_cfg: config of the optimizer wrapper, with ``optimizer`` in it.
        paramwise_cfg: the options.

    Raises:
        ValueError: an option is unknown, is no multiple, or multiplies what ``optimizer`` does not
            give.
    """

    def _validate_cfg(self) -> None:
        super()._validate_cfg()
        for key in self.paramwise_cfg:
            if key not in _KEYS:
                similar = difflib.get_close_matches(key, _KEYS, n=1)
                hint = f'did you mean {similar[0]}?' if similar else f'known: {", ".join(_KEYS)}'
                raise ValueError(f'optim_wrapper.paramwise_cfg has no option {key!r}; {hint}')
        for option, base in (('ratio_lr_mult', 'lr'), ('ratio_decay_mult', 'weight_decay')):
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
        if not isinstance(module, BaseNorm):
            super().add_params(params, module, prefix, is_dcn_module)
            return
        start = len(params)
        super().add_params(params, _AsLayerNorm(module), prefix, is_dcn_module)
        own = module.own_names()
        ratios = {id(p): n for n, p in module.named_parameters(recurse=False) if n in own}
        for group in params[start:]:
            name = ratios.get(id(group['params'][0]))
            if name is not None:
                self._set_ratio_options(group, f'{prefix}.{name}')

    def _set_ratio_options(self, group: dict, full_name: str) -> None:
        if any(key in full_name for key in self.paramwise_cfg.get('custom_keys', ())):
            return
        for option, key, base in (
            ('ratio_lr_mult', 'lr', self.base_lr),
            ('ratio_decay_mult', 'weight_decay', self.base_wd),
        ):
            mult = self.paramwise_cfg.get(option)
            if mult is not None:
                group[key] = base * mult
                print_log(
                    f'paramwise_options -- {full_name}:{key}={group[key]} by {option}',
                    logger='current',
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
