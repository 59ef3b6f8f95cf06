"""What the ranks do with layers that whiten."""

import torch
import torch.distributed as dist

from normplug.covariance import Covariances, inverse_root
from normplug.norms import SyncSW
from tests.cases import assert_same, random_input, run
from tests.dist.scenarios import EXACT, layer_of, local, summed
from tests.test_golden import load
from tests.test_golden_whitening import assert_step, part


def released_sync_sw():
    """What the released layer computed on two ranks of two images each."""
    golden = load('sync_sw3_two_ranks')
    layer = SyncSW(8, momentum=0.1, num_pergroup=4, sw_type=3, released=True).double()
    layer.load_state_dict(part(golden, 'before.'), strict=True)
    rank = f'rank{dist.get_rank()}.'
    for step in range(3):
        assert_step(layer, golden, step, rank)
    torch.testing.assert_close(layer.eval()(golden[f'{rank}x'][0]), golden[f'{rank}eval_y'])


def maps_of_different_size(name, shapes):
    """Batch covariances over all pixels, though neither N nor H·W agree; by autograd."""
    layer = layer_of(name)
    xs = [
        random_input((shape[0], layer.num_features, *shape[1:]), torch.float64, seed)
        for seed, shape in enumerate(shapes)
    ]
    xs = [x.requires_grad_() for x in xs]
    dys = [random_input(x.shape, torch.float64, seed=10 + i) for i, x in enumerate(xs)]
    twin = local(layer)
    blocks = [x.unflatten(1, (-1, layer.size)).flatten(3) for x in xs]  # (N, g, d, S)
    whole = torch.cat([b.permute(1, 2, 0, 3).flatten(2) for b in blocks], 2)
    batch = moments(whole)
    if layer.averages_roots:
        batch = batch._replace(cov=inverse_root(batch.cov, layer.eps, layer.T))
    ys = []
    for x, block in zip(xs, blocks, strict=True):
        instance = moments(block)
        rule = twin.rule(x)
        matrix, scale, offset = rule(instance, batch, *twin.rule_params(), pixels=block.shape[3])
        centred = block - instance.mean.unsqueeze(-1)
        ys.append((scale * (matrix @ centred) + offset).reshape(x.shape))
    torch.autograd.backward(ys, dys)

    rank = dist.get_rank()
    ours = run(layer, xs[rank], dys[rank])
    ours = {key: summed(t) if key.startswith('grad.') else t for key, t in ours.items()}
    old, step = twin.running(), layer.momentum
    expected = {
        'running_mean': (1 - step) * old.mean + step * batch.mean.detach().flatten(),
        layer.matrix_name: (1 - step) * old.var + step * batch.cov.detach(),
        'num_batches_tracked': torch.tensor(1),
        'y': ys[rank].detach(),
        'dx': xs[rank].grad,
    }
    expected |= {f'grad.{key}': p.grad for key, p in twin.named_parameters()}
    assert_same(ours, expected, EXACT)


def moments(samples):
    """Of (..., d, S)."""
    centred = samples - samples.mean(-1, keepdim=True)
    return Covariances(samples.mean(-1), centred @ centred.mT / samples.shape[-1])
