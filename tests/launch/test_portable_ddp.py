"""SyncBN on CPUs: what cannot be converted is refused."""

import pytest
from torch import nn
from torch.nn.utils import parametrizations

from normplug.errors import UserError
from normplug.launch.portable_ddp import PortableSyncBatchNorm, make_sync_bn_portable


class SyncBatchNormAct(nn.SyncBatchNorm):
    def forward(self, x):
        return super().forward(x).relu()


@pytest.mark.parametrize(
    ('layer', 'message'),
    [
        (SyncBatchNormAct(3), '1: SyncBatchNormAct, a SyncBN, has a forward of its own'),
        (
            parametrizations.weight_norm(nn.SyncBatchNorm(3), dim=None),
            '1: ParametrizedSyncBatchNorm, a SyncBN, makes its weight anew',
        ),
    ],
)
def test_a_sync_bn_that_does_more(layer, message):
    model = nn.Sequential(nn.SyncBatchNorm(3), layer)
    kind = type(layer)
    with pytest.raises(UserError, match=message):
        make_sync_bn_portable(model)
    assert [type(m) for m in model] == [nn.SyncBatchNorm, kind]


def test_mmengines_sync_bn_is_converted():
    """A subclass that only checks its input otherwise."""
    wrapper = pytest.importorskip('mmengine.utils.dl_utils.parrots_wrapper')
    model = nn.Sequential(wrapper.SyncBatchNorm(3))
    assert make_sync_bn_portable(model) == 1
    assert type(model[0]) is PortableSyncBatchNorm
