"""The context scale: what it reads, that it moves no mask, and that it can learn what the variance cannot."""

import pytest
import torch
import torch.nn.functional as F
from builders import make_decoded
from torch import nn

from ruac.base.config import config_from, load_config
from ruac.base.errors import RuacError
from ruac.uncertainty import BayesianConfig, HeadConfig, build_head, head_config
from ruac.uncertainty.local_temperature import GRID, INPUTS, LocalScale, LocalTemperature, answer_inputs, neighbourhood


def answer(n=3, side=16, seed=0):
    return make_decoded(n, side=side, token_dim=16, seed=seed)


def head_with_context(posterior="signed"):
    config = head_config(posterior, local_temperature=True, local_hidden=8)
    head = build_head(config, token_dim=16, channels=8)
    nn.init.normal_(head.local_temperature.network[-1].weight, std=2.0)  # as if trained
    return head


def test_inputs_are_those_named_and_of_the_chosen_token():
    decoded, index = answer(), torch.tensor([2, 0, 3])
    inputs = answer_inputs(decoded.logits, decoded.iou, index)
    assert inputs.shape == (3, len(INPUTS), 16, 16)
    named = dict(zip(INPUTS, inputs.unbind(1), strict=True))
    for n, k in enumerate(index.tolist()):
        own = decoded.logits[n, k]
        torch.testing.assert_close(named["logit"][n], torch.tanh(own / 4))
        candidates = decoded.logits[n, 1:]
        for name, logit in (
            ("single mask", decoded.logits[n, 0]),
            ("highest candidate", candidates.amax(0)),
            ("lowest candidate", candidates.amin(0)),
        ):
            torch.testing.assert_close(named[name][n], torch.tanh(logit / 4))
        torch.testing.assert_close(named["share of the map"][n], (own.sigmoid().mean() + 1e-4).log().expand_as(own))
        torch.testing.assert_close(named["predicted IoU"][n], decoded.iou[n, k].expand_as(own))
        torch.testing.assert_close(
            named["disagreement"][n], 2 * torch.stack([x.sigmoid() for x in decoded.logits[n, 1:]]).std(0)
        )


@pytest.mark.parametrize("share", [0.08, 0.24])
def test_a_neighbourhood_is_the_mean_of_what_lies_inside(share):
    maps = torch.rand(1, 1, 20, 20, generator=torch.Generator().manual_seed(0))
    found = neighbourhood(maps, share)[0, 0]
    half = (2 * int(share * 20 / 2) + 1) // 2
    for y, x in ((0, 0), (10, 7), (19, 3)):
        square = maps[0, 0, max(0, y - half) : y + half + 1, max(0, x - half) : x + half + 1]
        assert found[y, x].item() == pytest.approx(square.mean().item(), rel=1e-5)


def test_a_neighbourhood_hardly_depends_on_the_resolution():
    coarse = F.avg_pool2d(torch.rand(1, 1, GRID, GRID, generator=torch.Generator().manual_seed(1)), 5, 1, 2)
    fine = F.interpolate(coarse, scale_factor=4, mode="bilinear", align_corners=False)
    wanted = F.interpolate(neighbourhood(coarse, 0.24), scale_factor=4, mode="bilinear", align_corners=False)
    torch.testing.assert_close(neighbourhood(fine, 0.24), wanted, atol=0.02, rtol=0)


def test_training_starts_at_scale_one():
    decoded, index = answer(), torch.zeros(3, dtype=torch.int64)
    torch.manual_seed(0)
    assert LocalTemperature(8)(decoded.logits, decoded.iou, index).abs().max() < 0.02


@pytest.mark.parametrize("posterior", ["signed", "nonnegative"])
def test_mean_and_variance_are_scaled_and_the_mask_stays(posterior):
    decoded, head = answer(), head_with_context(posterior)
    found = head(decoded)
    mean, variance = found.calibrated()
    scale = mean / found.mean
    assert (scale > 0).all()
    assert scale.std() > 0.05
    torch.testing.assert_close(variance, scale.square() * found.variance, rtol=1e-4, atol=1e-7)
    if posterior == "signed":
        assert torch.equal(found.mean, decoded.logits)


def test_a_selected_token_has_the_scale_it_had_among_all():
    decoded, head = answer(), head_with_context()
    index = torch.tensor([1, 3, 0])
    everything, chosen = head(decoded), head(decoded).select(index)
    rows = torch.arange(3)
    for all_, one in zip(everything.calibrated(), chosen.calibrated(), strict=True):
        torch.testing.assert_close(one[:, 0], all_[rows, index])
    again = LocalScale(head.local_temperature, decoded.logits, decoded.iou, index[:, None]).select(
        torch.zeros(3, dtype=torch.int64)
    )
    torch.testing.assert_close(again()[:, 0], everything.local_scale()[rows, index])


def test_it_learns_that_whole_masks_are_wrong_which_one_temperature_cannot():
    """Logits of the same size, half of the masks right and known by their predicted IoU, half of them noise."""
    torch.manual_seed(0)
    logits = 3 * torch.randn(64, 4, 8, 8).sign()
    iou = (torch.arange(64) % 2).float()[:, None].expand(64, 4)
    right = logits[:, 1] > 0
    target = torch.where(iou[:, :1, None] > 0, right, torch.rand(64, 8, 8) > 0.5).float()
    scale, index = LocalTemperature(16), torch.ones(64, dtype=torch.int64)
    optimizer = torch.optim.Adam(scale.parameters(), 1e-2)
    for _ in range(150):
        loss = F.binary_cross_entropy_with_logits(logits[:, 1] * scale(logits, iou, index)[:, 0].exp(), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    # Right for certain in one half, ln 2 in the other; one temperature for both cannot go below 0.56.
    assert loss.item() < 0.4


def test_a_head_without_weibull_factors_refuses_a_context():
    with pytest.raises(
        RuacError, match="local_temperature' belongs to posterior signed or nonnegative, not to dropout"
    ):
        config_from(HeadConfig, {"posterior": "dropout", "local_temperature": True}, "test")
    with pytest.raises(RuacError, match=r"head\.local_hidden: expected at least 1 and at most 4096, found 0"):
        BayesianConfig(local_hidden=0).validate()


def test_names_of_older_versions_still_load():
    """It was called context: in configs, in overrides, in exports and in saved weights."""
    old = {"posterior": "signed", "context": True, "context_hidden": 8}
    config = config_from(HeadConfig, old, "test")
    assert (config.local_temperature, config.local_hidden) == (True, 8)
    assert load_config(HeadConfig, None, ["context=true", "context_hidden=8"]) == config
    assert config_from(HeadConfig, {"posterior": "context"}, "test") == head_config("local_temperature")
    with pytest.raises(RuacError, match="keys 'context' and 'local_temperature' are one"):
        config_from(HeadConfig, {"context": True, "local_temperature": True}, "test")
    for posterior in ("signed", "local_temperature"):
        part = {"local_temperature": True} if posterior == "signed" else {}  # of the other it is all there is
        config = head_config(posterior, local_hidden=8, **part)
        head, other = (build_head(config, token_dim=16, channels=8) for _ in range(2))
        state = {key.replace("local_temperature.", "context."): value for key, value in head.state_dict().items()}
        assert any(key.startswith("context.") for key in state)
        nn.ModuleDict({"head": other}).load_state_dict({f"head.{key}": value for key, value in state.items()})
        assert all(torch.equal(value, other.state_dict()[key]) for key, value in head.state_dict().items())
