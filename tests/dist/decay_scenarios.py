"""Gamma decay on ranks with images of their own."""

import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from normplug.hooks import GammaDecayHook
from normplug.norms import PortableSyncBN
from tests.dist.scenarios import assert_equal_on_all_ranks
from tests.hooks.decay_training import Net, Training, batch, independent


def decay(split, sync):
    """Strengths and weights as one process with all images has them, where images are weighted."""
    hook = GammaDecayHook(8, kurtosis_interval=3, kurtosis_batches=2)
    model = Net(PortableSyncBN(4) if sync else independent())
    training = Training(model, hook)
    training.model = DistributedDataParallel(model)
    rank, found = dist.get_rank(), []
    for t in range(3):
        x, label = batch(sum(split), t)
        own = [part.split(split)[rank] for part in (x, label)]
        # DDP averages over ranks: the mean over all images is this.
        factor = split[rank] * len(split) / sum(split)
        hook_state = hook._decays[0].estimate
        hook_state.gradients._loss_factor = lambda factor=factor: 1 / factor
        training.step(*own, loss_factor=factor)
        found += [*hook.strengths().values(), hook_state.kurtosis.clone()]
    found.append(model.norm.weight.detach())
    assert_equal_on_all_ranks(found)
    return [t.clone() for t in found]


def alone(images, sync):
    hook = GammaDecayHook(8, kurtosis_interval=3, kurtosis_batches=2)
    model, found = Net(PortableSyncBN(4) if sync else independent()), []
    training = Training(model, hook)
    for t in range(3):
        training.step(*batch(images, t))
        found += [*hook.strengths().values(), hook._decays[0].estimate.kurtosis.clone()]
    return [*found, model.norm.weight.detach()]
