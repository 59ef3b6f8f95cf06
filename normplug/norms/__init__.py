"""The norm types, one file per paper, under the names that configs use."""

from normplug.norms.base import BaseNorm
from normplug.norms.bcn import BCN, EstBCN, SyncBCN
from normplug.norms.bin import BIN
from normplug.norms.bn import GhostBN, PortableSyncBN
from normplug.norms.brn import BRN, SyncBRN
from normplug.norms.cbn import CBN
from normplug.norms.ebn import EBN, SyncEBN
from normplug.norms.frn import FRN
from normplug.norms.gw import GW
from normplug.norms.ibn import IBN, SyncIBN
from normplug.norms.iternorm import IterNorm, SyncIterNorm
from normplug.norms.kn import KN, SyncKN
from normplug.norms.mabn import MABN
from normplug.norms.pn import PN, SyncPN
from normplug.norms.sn import SN, SyncSN
from normplug.norms.ssn import SSN, SyncSSN
from normplug.norms.sw import SW, SyncSW

__all__ = [
    'BCN',
    'BIN',
    'BRN',
    'CBN',
    'EBN',
    'FRN',
    'GW',
    'IBN',
    'KN',
    'MABN',
    'PN',
    'SN',
    'SSN',
    'SW',
    'BaseNorm',
    'EstBCN',
    'GhostBN',
    'IterNorm',
    'PortableSyncBN',
    'SyncBCN',
    'SyncBRN',
    'SyncEBN',
    'SyncIBN',
    'SyncIterNorm',
    'SyncKN',
    'SyncPN',
    'SyncSN',
    'SyncSSN',
    'SyncSW',
]
