import math

import pytest
import torch

from ruac.training.attack import reverse_gradient
from ruac.training.losses.alignment import alignment_loss, mean_over_objects, pixel_error


def data(*shape, seed=0):
    rng = torch.Generator().manual_seed(seed)
    logits = (3 * torch.randn(*shape, generator=rng)).requires_grad_()
    target = (torch.rand(*shape, generator=rng) > 0.5).float()
    uncertainty = torch.rand(*shape, generator=rng).requires_grad_()
    return logits, target, uncertainty


def test_values_match_the_formula_pixel_by_pixel():
    logits, target, uncertainty = data(2, 3, 3)
    loss = alignment_loss(logits, target, uncertainty)
    both = alignment_loss(logits, target, uncertainty, mode="joint")
    assert loss.shape == logits.shape
    for index in [(0, 0, 0), (0, 1, 2), (1, 2, 1)]:
        e = abs(1 / (1 + math.exp(-logits[index].item())) - target[index].item())
        u = uncertainty[index].item()
        expected = e * math.exp(-u) + (1 - e) * math.exp(u)
        assert loss[index].item() == pytest.approx(expected, rel=1e-5)
        assert both[index].item() == pytest.approx(2 * expected, rel=1e-5)


def test_slopes_are_those_of_the_docstring():
    logits, target, uncertainty = data(4, 5)
    e = pixel_error(logits, target).detach()
    sigma = logits.detach().sigmoid()
    de = (sigma - target).sign() * sigma * (1 - sigma)  # d e / d logit
    to_logits = -2 * uncertainty.detach().sinh() * de
    to_uncertainty = -e * torch.exp(-uncertainty.detach()) + (1 - e) * torch.exp(uncertainty.detach())

    alignment_loss(logits, target, uncertainty).sum().backward()
    torch.testing.assert_close(logits.grad, to_logits, rtol=1e-4, atol=1e-6)
    assert uncertainty.grad is None

    logits.grad = None
    alignment_loss(logits, target, uncertainty, mode="joint").sum().backward()
    torch.testing.assert_close(logits.grad, to_logits, rtol=1e-4, atol=1e-6)  # L2 adds nothing through e
    torch.testing.assert_close(uncertainty.grad, to_uncertainty, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("error", "best"), [(0.0, 0.0), (0.3, 0.0), (0.5, 0.0), (0.7, 0.5 * math.log(7 / 3)), (0.95, 1.0)]
)
def test_joint_is_smallest_where_uncertainty_says_how_wrong_the_pixel_is(error, best):
    u = torch.linspace(0, 1, 1001)
    logits = torch.logit(torch.tensor(error)).expand_as(u)
    loss = alignment_loss(logits, torch.zeros_like(u), u, mode="joint")
    assert u[loss.argmin()].item() == pytest.approx(best, abs=2e-3)


def test_one_backward_moves_attacker_and_head_apart():
    # attack -> logit (right answer, unsure); head -> uncertainty
    target = torch.ones(1, 4)
    attack = torch.zeros(1, 4, requires_grad=True)
    head = torch.full((1, 4), 0.4, requires_grad=True)
    logits = 0.3 + reverse_gradient(attack)
    before = alignment_loss(logits, target, head, mode="joint")
    before.sum().backward()
    moved_attack = alignment_loss(0.3 + attack - 0.1 * attack.grad, target, head)
    assert (moved_attack > alignment_loss(logits, target, head)).all()
    moved_head = alignment_loss(logits, target, head - 0.1 * head.grad, mode="joint")
    assert (moved_head < before).all()
    # the attacker makes errors smaller where the model says it is unsure: minus the gradient raises the logit
    assert (attack.grad < 0).all()


def test_attackers_reach_uncertainty_only_in_joint_mode():
    attack = torch.zeros(1, 4, requires_grad=True)
    target, logits = torch.ones(1, 4), torch.full((1, 4), 2.0)  # right, e = 0.12
    uncertainty = 0.2 + reverse_gradient(attack)
    assert not alignment_loss(logits, target, uncertainty).requires_grad
    alignment_loss(logits, target, uncertainty, mode="joint").sum().backward()
    assert (attack.grad < 0).all()  # descent on it raises u: right and unsure, which is misaligned


def test_half_precision_inputs_are_computed_in_float32():
    logits, target, uncertainty = data(3, 4)
    loss = alignment_loss(logits.bfloat16(), target.bfloat16(), uncertainty.bfloat16(), mode="joint")
    assert loss.dtype == torch.float32
    exact = alignment_loss(logits, target, uncertainty, mode="joint")
    torch.testing.assert_close(loss, exact, rtol=0.02, atol=0.02)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(alignment_loss(logits, target, uncertainty, mode="joint"), exact)


def test_extreme_logits_stay_finite():
    logits = torch.tensor([[-500.0, 500.0]], requires_grad=True)
    u = torch.tensor([[1.0, 0.0]], requires_grad=True)
    alignment_loss(logits, torch.tensor([[1.0, 1.0]]), u, mode="joint").sum().backward()
    assert logits.grad.isfinite().all()
    assert u.grad.isfinite().all()


def test_mean_over_objects():
    loss = torch.arange(12.0).view(3, 2, 2)
    assert mean_over_objects(loss) == loss.mean()
    assert mean_over_objects(loss, torch.tensor([1.0, 0.0, 3.0])) == (1.5 + 3 * 9.5) / 4
    assert mean_over_objects(loss, torch.zeros(3)) == 0


def test_misuse_is_an_error():
    logits, target, uncertainty = data(2, 4)
    with pytest.raises(ValueError, match="mode"):
        alignment_loss(logits, target, uncertainty, mode="both")
    with pytest.raises(ValueError, match="one shape"):
        alignment_loss(logits, target, uncertainty[:1])
