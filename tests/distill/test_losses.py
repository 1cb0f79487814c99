"""The divergence between posteriors, by hand and by autograd."""

import math

import pytest
import torch

from syndistill.distill.losses import posterior_divergence


def test_one_observable_by_hand():
    # Teacher 3/4 against Student 1/2: 3/4 log(3/2) + 1/4 log(1/2).
    teacher, student = torch.tensor([[math.log(3.0)]]), torch.zeros(1, 1)
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert posterior_divergence(student, teacher).item() == pytest.approx(expected, abs=1e-6)


def test_four_classes_by_hand():
    p, q = [0.7, 0.1, 0.15, 0.05], [0.4, 0.3, 0.2, 0.1]
    teacher, student = torch.tensor([p]).log() + 3.0, torch.tensor([q]).log()
    expected = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert posterior_divergence(student, teacher).item() == pytest.approx(expected, abs=1e-6)


def test_two_observables_are_averaged():
    teacher, student = torch.tensor([[2.0, -1.0]]), torch.tensor([[0.5, 3.0]])
    each = [posterior_divergence(student[:, [i]], teacher[:, [i]]) for i in (0, 1)]
    torch.testing.assert_close(posterior_divergence(student, teacher), (each[0] + each[1]) / 2)


@pytest.mark.parametrize("channels", [1, 2, 4])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_zero_where_both_agree_and_positive_elsewhere(channels, temperature):
    logits = 8 * torch.randn(50, 3, channels, generator=torch.Generator().manual_seed(1))
    same = posterior_divergence(logits, logits, temperature)
    assert same.shape == (50, 3)
    assert same.abs().max() < 1e-6
    shift = torch.linspace(1, 2, channels) * (-1) ** torch.arange(channels)
    apart = posterior_divergence(logits + shift, logits, temperature)
    assert apart.min() > -1e-6
    assert apart.mean() > 0.01


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_gradient_is_the_difference_of_the_posteriors(temperature):
    # d/ds T^2 KL = T (q - p) at temperature T, for the sigmoid and for the softmax.
    generator = torch.Generator().manual_seed(2)
    for channels, posterior in ((1, torch.sigmoid), (4, lambda x: torch.softmax(x, -1))):
        student = torch.randn(20, channels, generator=generator, requires_grad=True)
        teacher = 3 * torch.randn(20, channels, generator=generator)
        posterior_divergence(student, teacher, temperature).sum().backward()
        expected = temperature * (posterior(student.detach() / temperature) - posterior(teacher / temperature))
        torch.testing.assert_close(student.grad, expected, atol=1e-6, rtol=1e-5)


def test_large_temperature_regresses_log_odds():
    # T^2 KL -> (z_t - z_s)^2 / 8
    student, teacher = torch.tensor([[1.0], [-2.0]]), torch.tensor([[3.0], [2.0]])
    found = posterior_divergence(student, teacher, temperature=100.0)
    torch.testing.assert_close(found, torch.tensor([4.0 / 8, 16.0 / 8]), rtol=0.02, atol=0)


def test_large_logits_stay_exact():
    student = torch.tensor([[60.0]], requires_grad=True)
    found = posterior_divergence(student, torch.tensor([[-60.0]]))
    found.backward()
    assert found.item() == pytest.approx(60.0)
    assert student.grad.item() == pytest.approx(1.0)
