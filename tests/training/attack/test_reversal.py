import pytest
import torch

from ruac.training.attack import reverse_gradient


def test_forward_is_the_identity():
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(reverse_gradient(x, 0.7), x)


@pytest.mark.parametrize("scale", [1.0, 0.25, 0.0])
def test_gradient_is_the_finite_difference_times_minus_scale(scale):
    x = torch.randn(5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()

    def loss(z):
        return (z.sin() * z.square()).sum()

    (gradient,) = torch.autograd.grad(loss(reverse_gradient(x, scale)), x)
    step = 1e-6 * torch.eye(5, dtype=torch.float64)
    numeric = torch.stack([(loss(x.detach() + s) - loss(x.detach() - s)) / 2e-6 for s in step])
    torch.testing.assert_close(gradient, -scale * numeric, atol=1e-7, rtol=1e-6)


def test_reversed_twice_passes_gradcheck():
    x = torch.randn(4, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: reverse_gradient(reverse_gradient(z).exp()), x)


def test_one_backward_climbs_before_and_descends_after():
    attacker, model = torch.tensor(0.5, requires_grad=True), torch.tensor(2.0, requires_grad=True)
    (reverse_gradient(attacker) * model).backward()
    assert attacker.grad == -2.0
    assert model.grad == 0.5
