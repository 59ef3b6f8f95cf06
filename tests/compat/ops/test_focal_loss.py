"""Sigmoid focal loss."""

import pytest
import torch
import torch.nn.functional as F

from tests.compat.ops.mmcv_operators import (
    COMPILED,
    DEVICE,
    not_compiled_for_cpu,
    ops,
    ours_only,
    rand,
)


def focal_formula(x, target, gamma, alpha):
    p = x.sigmoid()
    one_hot = F.one_hot(target, x.size(1) + 1)[:, :-1].to(x)
    pt = p * one_hot + (1 - p) * (1 - one_hot)
    balance = alpha * one_hot + (1 - alpha) * (1 - one_hot)
    return -balance * (1 - pt) ** gamma * pt.log()


@not_compiled_for_cpu
@pytest.mark.parametrize(('gamma', 'alpha'), [(2.0, 0.25), (0.0, 0.5), (1.5, 0.9)])
def test_focal_loss_is_the_formula(gamma, alpha, rng):
    x = (4 * rand(9, 5, rng=rng) - 2).requires_grad_()
    target = torch.arange(9, device=DEVICE) % 6  # 5 is the background
    got = ops.sigmoid_focal_loss(x, target, gamma, alpha, None, 'none')
    expected = focal_formula(x, target, gamma, alpha)
    # The compiled kernel takes exp in fp32 whatever the type.
    tolerance = {'rtol': 0, 'atol': 1e-6 if COMPILED else 1e-14}
    torch.testing.assert_close(got, expected, **tolerance)
    upstream = rand(9, 5, rng=rng)
    (got_grad,) = torch.autograd.grad(got, x, upstream)
    (expected_grad,) = torch.autograd.grad(expected, x, upstream)
    torch.testing.assert_close(got_grad, expected_grad, **tolerance)
    mean = ops.sigmoid_focal_loss(x, target, gamma, alpha)
    torch.testing.assert_close(mean, expected.sum() / 9, rtol=0, atol=1e-6)


@not_compiled_for_cpu
def test_focal_loss_class_weights(rng):
    x = (4 * rand(6, 3, rng=rng) - 2).requires_grad_()
    target, weight = torch.arange(6, device=DEVICE) % 3, x.new_tensor([1.0, 0.5, 3.0])
    got = ops.sigmoid_focal_loss(x, target, 2.0, 0.25, weight, 'sum')
    expected = (focal_formula(x, target, 2.0, 0.25) * weight[target][:, None]).sum()
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=0)
    grads = [torch.autograd.grad(loss, x)[0] for loss in (got, expected)]
    torch.testing.assert_close(*grads, rtol=0, atol=1e-6)


@ours_only
def test_focal_loss_gradcheck_and_weighted_background(rng):
    x = rand(4, 3, rng=rng).requires_grad_()
    target = torch.tensor([0, 1, 2, 3], device=DEVICE)
    assert torch.autograd.gradcheck(
        lambda x: ops.sigmoid_focal_loss(x, target, 2.0, 0.25, None, 'sum'), x
    )
    with pytest.raises(ValueError, match=r'every target in \[0, 3\)'):
        ops.sigmoid_focal_loss(x, target, 2.0, 0.25, x.new_ones(3), 'sum')


@ours_only
def test_focal_loss_is_finite_at_certain_logits():
    x = torch.tensor([[-200.0, 200.0]], device=DEVICE).requires_grad_()
    target = torch.tensor([0], device=DEVICE)
    loss = ops.sigmoid_focal_loss(x, target, 2.0, 0.25, None, 'sum')
    torch.testing.assert_close(loss, loss.new_tensor(0.25 * 200 + 0.75 * 200))
    (grad,) = torch.autograd.grad(loss, x)
    torch.testing.assert_close(grad, grad.new_tensor([[-0.25, 0.75]]))


@not_compiled_for_cpu
def test_focal_loss_is_mmdet_s(rng):
    focal_loss = pytest.importorskip('mmdet.models.losses.focal_loss')
    x = (6 * rand(8, 4, rng=rng) - 3).requires_grad_()
    target, weight = torch.arange(8, device=DEVICE) % 5, rand(8, rng=rng)
    one_hot = F.one_hot(target, 5)[:, :4]
    got = focal_loss.sigmoid_focal_loss(x, target, weight, avg_factor=3.0)
    expected = focal_loss.py_sigmoid_focal_loss(x, one_hot, weight, avg_factor=3.0)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)
    grads = [torch.autograd.grad(loss, x)[0] for loss in (got, expected)]
    torch.testing.assert_close(*grads, rtol=0, atol=1e-6)
