"""The norm types, one file per paper, under the names that configs use."""

from normplug.norms.base import BaseNorm
from normplug.norms.bn import GhostBN, PortableSyncBN
from normplug.norms.ibn import IBN, SyncIBN
from normplug.norms.kn import KN, SyncKN
from normplug.norms.sn import SN, SyncSN
from normplug.norms.ssn import SSN, SyncSSN

__all__ = [
    'IBN',
    'KN',
    'SN',
    'SSN',
    'BaseNorm',
    'GhostBN',
    'PortableSyncBN',
    'SyncIBN',
    'SyncKN',
    'SyncSN',
    'SyncSSN',
]
