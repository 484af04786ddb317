"""Procedural stress as an attack: drawn by torch's seed, object masks in step with the picture."""

import numpy as np
import pytest
import torch
from builders import three_objects
from training_builders import make_task, run

from ruac.base.config import load_config
from ruac.base.errors import RuacError
from ruac.data.augment import MEAN, STD, normalise
from ruac.data.synthetic.shifts import SHIFTS
from ruac.data.synthetic.stress import StressConfig
from ruac.training.adversarial import TrainConfig
from ruac.training.attack import AttackConfig, build_attacker
from ruac.training.curriculum import Phase

SIDE = 64


def batch(count=2):
    masks, valid = three_objects(count, SIDE)
    rng = torch.Generator().manual_seed(1)
    levels = torch.randint(256, (count, 3, SIDE, SIDE), generator=rng)
    return normalise(levels.float() / 255), torch.zeros(count, 8, 4, 4), masks, valid


def attack(config, seed=0):
    images, embedding, masks, valid = batch()
    torch.manual_seed(seed)
    return build_attacker(AttackConfig(kind="stress", stress=config), feature_dim=8)(images, embedding, masks, valid)


@pytest.mark.parametrize("name", ["night", "elastic"])
def test_the_picture_is_the_shift_of_its_own_seed(name):
    images, _, masks, valid = batch()
    attacked = attack(StressConfig(families=[name]), seed=5)
    torch.manual_seed(5)
    seeds = torch.randint(2**62, (2,)).tolist()
    for n, seed in enumerate(seeds):
        rng = np.random.default_rng(seed)
        rng.integers(1)  # which family
        pixels = ((images[n] * STD + MEAN) * 255).round().byte().permute(1, 2, 0).numpy()
        held = valid[n]
        picture, moved = SHIFTS[name](pixels, masks[n, held].bool().numpy(), rng)
        shown = (attacked.images[n] * STD + MEAN) * 255
        torch.testing.assert_close(shown.permute(1, 2, 0), torch.from_numpy(picture).float(), atol=1e-3, rtol=0)
        assert torch.equal(attacked.masks[n, held].bool(), torch.from_numpy(moved))
        assert not attacked.masks[n, ~held].any()


def test_the_seed_decides_and_nothing_else():
    first, again, other = (attack(StressConfig(), seed=seed).images for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0] - batch()[0][0], first[1] - batch()[0][1])


def test_strength_scales_the_shift():
    images = batch()[0]

    def change(strength):
        config = StressConfig(families=["overhead"], weakest=strength, strongest=strength)
        return (attack(config).images - images).abs().mean().item()

    assert change(0.5) == pytest.approx(0.5 * change(1.0), rel=0.02)
    drawn = attack(StressConfig(families=["overhead"], weakest=0.2, strongest=0.9))
    assert change(0.2) < (drawn.images - images).abs().mean() < change(0.9)


def test_half_an_elastic_shift_moves_masks_half_as_far():
    masks = batch()[2]
    moved = [
        (attack(StressConfig(families=["elastic"], weakest=s, strongest=s)).masks != masks).sum() for s in (0.25, 1.0)
    ]
    assert 0 < moved[0] < moved[1]


def test_corruptions_are_drawn_at_their_severity():
    config = StressConfig(corruptions=["fog:5"])
    assert config.drawn == ["fog:5"]
    strong, weak = attack(config).images, attack(StressConfig(corruptions=["fog:1"])).images
    assert strong.std() < weak.std()
    both = StressConfig(families=["fog"], corruptions=["fog:1"])
    assert both.drawn == ["fog", "fog:1"]


def test_the_config_names_what_is_wrong():
    for values, message in (
        (["attack.stress.families=[fogg]"], "'fogg'"),
        (["attack.stress.corruptions=[fog:9]"], "severity '9'"),
        (["attack.stress.weakest=0"], "weakest"),
        (["attack.stress.strongest=0.5"], "strongest"),
    ):
        with pytest.raises(RuacError, match=message):
            load_config(TrainConfig, "configs/train/stress.yaml", ["source=x", *values])


@pytest.mark.usefixtures("fresh_accelerator")
def test_a_resumed_run_draws_the_same_stress(tmp_path):
    losses = {}

    def observed(name):
        task, losses[name] = make_task(kind="stress", phases=[Phase(1.0, 1.0, 0.05, 1.0)], corrections=0), []
        task.register_forward_hook(lambda _m, _i, terms: losses[name].append(terms["loss"].item()))
        return task

    run(tmp_path / "whole", observed("whole"), steps=4, save_every=2)
    first = observed("first")

    def stop(_module, _inputs):
        if len(losses["first"]) == 3:
            raise KeyboardInterrupt

    first.register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", first, steps=4, save_every=2)
    run(tmp_path / "parts", observed("second"), resume=True, steps=4, save_every=2)
    assert losses["second"] == losses["whole"][2:]
