"""MixStyle and DSU against their statistics written out in numpy."""

import numpy as np
import pytest
import torch

from ruac.base.config import load_config
from ruac.base.errors import RuacError
from ruac.training.attack import AttackConfig, MixStyle, UncertainStyle, build_attacker


def levels(batch=4):
    torch.manual_seed(0)
    offset = torch.randn(batch, 1, 1, 1)
    return [torch.randn(batch, c, s, s) * (1 + 0.3 * offset.abs()) + offset for c, s in ((6, 4), (3, 16), (2, 8))]


def moments(maps):
    values = maps.detach().double().numpy()
    return values.mean((2, 3)), values.std((2, 3), ddof=1)


def test_mixstyle_gives_the_mixed_statistics_at_every_level():
    torch.manual_seed(1)
    attack, maps = MixStyle(1.0, alpha=0.7), levels()
    weight, partner = attack.draw(4, torch.device("cpu"))
    attack.draw = lambda *_: (weight, partner)
    mixed, w, p = attack(maps), weight[:, 0, 0].double().numpy(), partner.numpy()
    assert (p != np.arange(4)).any()
    for before, after in zip(maps, mixed, strict=True):
        (mean, std), (new_mean, new_std) = moments(before), moments(after)
        np.testing.assert_allclose(new_mean, w * mean + (1 - w) * mean[p], atol=1e-4)
        np.testing.assert_allclose(new_std, w * std + (1 - w) * std[p], atol=1e-4)
        values = (before.double().numpy() - mean[..., None, None]) / std[..., None, None]  # the content stays
        content = (after.double().numpy() - new_mean[..., None, None]) / new_std[..., None, None]
        np.testing.assert_allclose(content, values, atol=1e-3)


def test_mixstyle_weights_are_beta_distributed():
    weight, partner = MixStyle(1.0, alpha=0.1).draw(20000, torch.device("cpu"))
    assert weight.mean().item() == pytest.approx(0.5, abs=0.01)
    assert weight.var().item() == pytest.approx(0.25 / 1.2, rel=0.03)  # of Beta(a, a): 1 / (4 (2 a + 1))
    assert partner.sort().values.equal(torch.arange(20000))


def test_dsu_moves_statistics_by_the_spread_of_the_batch():
    torch.manual_seed(2)
    attack, maps = UncertainStyle(1.0), levels()
    shifts = {0: [], 1: []}
    for _ in range(1500):
        for which, statistic in enumerate(moments(attack(maps)[0])):
            shifts[which].append(statistic - moments(maps[0])[which])
    for which, observed in shifts.items():
        statistic = moments(maps[0])[which]
        observed = np.stack(observed)
        spread = statistic.std(0, ddof=1)
        if which == 0:  # the standard deviation may turn negative, which its own measurement cannot show
            np.testing.assert_allclose(observed.std(0), np.broadcast_to(spread, statistic.shape), rtol=0.1)
        assert np.abs(observed.mean(0)).max() < 0.15 * spread.max()


def test_dsu_leaves_a_single_image_alone():
    maps = levels(1)
    for before, after in zip(maps, UncertainStyle(1.0)(maps), strict=True):
        torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("make", [lambda p: MixStyle(p, 0.5), UncertainStyle])
def test_every_image_is_attacked_with_the_probability_and_at_all_levels(make):
    torch.manual_seed(3)
    maps = [torch.randn(2000, 2, 3, 3), torch.randn(2000, 1, 2, 2)]
    changed = [(a != b).flatten(1).any(1) for a, b in zip(maps, make(0.3)(maps), strict=True)]
    assert changed[0].float().mean().item() == pytest.approx(0.3, abs=0.04)
    assert (changed[0] == changed[1]).float().mean() > 0.99  # an image may be its own partner


@pytest.mark.parametrize("kind", ["mixstyle", "dsu"])
def test_the_attacker_changes_features_only_and_lets_gradients_through(kind):
    torch.manual_seed(4)
    attacker = build_attacker(AttackConfig(kind=kind, feature_probability=1.0))
    maps = [level.requires_grad_() for level in levels()]
    attacked = attacker.perturb_features(maps)
    sum(level.square().sum() for level in attacked).backward()
    for before, after in zip(maps, attacked, strict=True):
        assert after.shape == before.shape
        assert not torch.equal(after, before)
        assert before.grad.isfinite().all()
        assert (before.grad != 0).any()
    assert not list(attacker.parameters())
    half = attacker.perturb_features([level.detach().bfloat16() for level in maps])
    assert all(level.dtype == torch.bfloat16 for level in half)


def test_other_attacks_hand_features_back_as_they_are():
    maps = levels()
    assert build_attacker(AttackConfig(kind="noise")).perturb_features(maps) is maps


@pytest.mark.parametrize("override", ["feature_probability=0", "feature_probability=1.5", "mixstyle_alpha=0"])
def test_impossible_settings_are_refused(override):
    with pytest.raises(RuacError, match="attack." + override.split("=")[0]):
        load_config(AttackConfig, None, [override])
