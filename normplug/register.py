"""Name → class, in mmengine's root registry, where every OpenMMLab scope finds it."""

from mmengine.registry import MODELS

from normplug.norms import (
    IBN,
    KN,
    SN,
    SSN,
    GhostBN,
    PortableSyncBN,
    SyncIBN,
    SyncKN,
    SyncSN,
    SyncSSN,
)

__all__ = ['NORMS', 'register']

NORMS = {
    'SN': SN,
    'SyncSN': SyncSN,
    'SSN': SSN,
    'SyncSSN': SyncSSN,
    'IBN': IBN,
    'SyncIBN': SyncIBN,
    'KN': KN,
    'SyncKN': SyncKN,
    'GhostBN': GhostBN,
    'PortableSyncBN': PortableSyncBN,
}


def register() -> None:
    """Make ``norm_cfg=dict(type=NAME)`` work for every normalizer; may be called again."""
    for name, norm in NORMS.items():
        if MODELS.module_dict.get(name) is not norm:
            MODELS.register_module(name=name, module=norm)
