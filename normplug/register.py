"""Register the norm types in mmengine's root registry, where every OpenMMLab scope finds them."""

from mmengine.registry import MODELS

from normplug import norms

__all__ = ['NORMS', 'register']

NORMS = {name: getattr(norms, name) for name in norms.__all__ if name != 'BaseNorm'}


def register() -> None:
    """Make ``norm_cfg=dict(type=NAME)`` work for every normalizer; may be called again."""
    for name, norm in NORMS.items():
        if MODELS.module_dict.get(name) is not norm:
            MODELS.register_module(name=name, module=norm)
