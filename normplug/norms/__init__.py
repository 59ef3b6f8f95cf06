"""The normalizers, one file a paper."""

from normplug.norms.base import BaseNorm
from normplug.norms.bn import PortableSyncBN
from normplug.norms.ibn import IBN, SyncIBN
from normplug.norms.sn import SN, SyncSN

__all__ = ['IBN', 'SN', 'BaseNorm', 'PortableSyncBN', 'SyncIBN', 'SyncSN']
