from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from builders import memory_blocks
from torch import nn

from ruac.base.config import load_config, save_config
from ruac.base.errors import RuacError
from ruac.training.attack import (
    ATTACK_KINDS,
    AttackConfig,
    DeformationConfig,
    StyleConfig,
    build_attacker,
)
from ruac.training.attack.attacker import AdversarialPatch, ProjectedGradient

DIM, SIZE = 16, 64
CHANGES_IMAGES = ("learned", "noise", "pgd", "patch", "random_style", "random_deformation", "random", "stress")
CHANGES_MASKS = ("random_deformation", "random")


def build(config):
    torch.manual_seed(20)
    return build_attacker(config, feature_dim=DIM, memory_blocks=memory_blocks(DIM, seed=20))


def scene(batch=2):
    rng = torch.Generator().manual_seed(0)
    images = F.interpolate(torch.randn(batch, 3, SIZE // 4, SIZE // 4, generator=rng), size=SIZE, mode="bicubic")
    embedding = torch.randn(batch, DIM, SIZE // 16, SIZE // 16, generator=rng)
    masks = torch.zeros(batch, 2, SIZE, SIZE)
    masks[:, 0, 4:30, 4:30] = 1
    masks[:, 1, 20:50, 24:56] = 1
    images = (images + masks.sum(1, keepdim=True)).clamp(-2.1, 2.6)
    valid = torch.ones(batch, 2, dtype=torch.bool)
    return images, embedding, masks, valid


class Segmenter(nn.Module):
    """A stand-in that segments the union of the objects, quickly fitted to the clean images."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(21)
        self.net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 1, 3, padding=1))

    def loss(self, images, masks):
        return F.binary_cross_entropy_with_logits(self.net(images)[:, 0], masks.amax(1))

    def fit(self, images, masks, steps=40):
        optimizer = torch.optim.Adam(self.parameters(), lr=0.02)
        for _ in range(steps):
            optimizer.zero_grad()
            self.loss(images, masks).backward()
            optimizer.step()
        return self


@pytest.fixture(scope="module")
def fitted():
    images, _, masks, _ = scene()
    return Segmenter().fit(images, masks)


def loss_fn(model, masks):
    return lambda images: model.loss(images, masks)


@pytest.mark.parametrize(("style", "deformation"), [(True, False), (False, True), (True, True)])
def test_minimising_steps_of_the_attackers_raise_the_loss(fitted, style, deformation):
    images, embedding, masks, valid = scene()
    attacker = build(AttackConfig(use_style=style, use_deformation=deformation)).eval()

    def loss():
        attacked = attacker(images, embedding, masks, valid)
        return fitted.loss(attacked.images, attacked.masks)

    trainable = [p for p in attacker.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trainable, lr=3e-3)
    before = loss().item()
    for _ in range(15):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert loss().item() > before + 1e-3
    assert loss().item() > fitted.loss(images, masks).item()


@pytest.mark.parametrize("part", ["style", "deformation"])
def test_one_plain_gradient_step_raises_the_loss_to_first_order(fitted, part):
    images, embedding, masks, valid = scene()
    attacker = build(AttackConfig(use_style=part == "style", use_deformation=part == "deformation")).eval()
    trainable = [p for p in attacker.parameters() if p.requires_grad]

    def loss():  # clean masks: only what the gradient can see
        return fitted.loss(attacker(images, embedding, masks, valid).images, masks)

    before = loss()
    before.backward()
    slope = sum(p.grad.square().sum() for p in trainable)
    rate = 1e-4 / slope
    with torch.no_grad():
        for p in trainable:
            p -= rate * p.grad
    assert (loss() - before).item() == pytest.approx(1e-4, rel=0.3)


def test_steps_of_the_model_lower_the_adversarial_loss(fitted):
    images, embedding, masks, valid = scene()
    attacker = build(AttackConfig(style=StyleConfig(init_std=0.3), deformation=DeformationConfig(init_std=0.1))).eval()
    model = Segmenter()
    model.load_state_dict(fitted.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    losses = []
    for _ in range(6):
        attacked = attacker(images, embedding, masks, valid)
        loss = model.loss(attacked.images, attacked.masks)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses == sorted(losses, reverse=True)


def test_zeroed_attackers_leave_images_masks_and_loss_exactly_unchanged(fitted):
    images, embedding, masks, valid = scene()
    attacker = build(AttackConfig())
    with torch.no_grad():
        for p in attacker.parameters():
            if p.requires_grad:
                p.zero_()
    attacked = attacker(images, embedding, masks, valid)
    assert torch.equal(attacked.images, images)
    assert torch.equal(attacked.masks, masks)
    assert torch.equal(fitted.loss(attacked.images, attacked.masks), fitted.loss(images, masks))
    assert all(value == 0 for value in attacked.strength.values())


def test_learned_is_style_then_deformation_of_the_styled_image():
    images, embedding, masks, valid = scene()
    attacker = build(AttackConfig(style=StyleConfig(init_std=0.3), deformation=DeformationConfig(init_std=0.1))).eval()
    styled = attacker.style(images, embedding, masks, valid)
    expected = attacker.deformation(styled, embedding, masks, valid)
    attacked = attacker(images, embedding, masks, valid)
    assert torch.equal(attacked.images, expected.images)
    assert torch.equal(attacked.masks, expected.masks)
    assert attacked.strength["style_change"] == (styled - images).abs().mean()


def test_the_attack_is_predicted_from_clean_features_only():
    images, embedding, masks, valid = scene()
    attacker = build(AttackConfig(style=StyleConfig(init_std=0.3), deformation=DeformationConfig(init_std=0.1))).eval()
    first = attacker.deformation(images, embedding, masks, valid).displacement
    second = attacker.deformation(images + 1, embedding, masks, valid).displacement
    assert torch.equal(first, second)


@pytest.mark.parametrize("kind", ATTACK_KINDS)
def test_each_kind_runs_with_one_interface(fitted, kind):
    images, embedding, masks, valid = scene()
    attacker = build(AttackConfig(kind=kind))
    attacked = attacker(images, embedding, masks, valid, loss_fn=loss_fn(fitted, masks))
    assert attacked.images.shape == images.shape
    assert attacked.masks.shape == masks.shape
    assert set(attacked.masks.unique().tolist()) <= {0.0, 1.0}
    assert not attacked.masks.requires_grad
    assert set(attacked.strength) == {"image_change", "style_change", "offset_pixels", "mask_change"}
    assert all(v.ndim == 0 and not v.requires_grad for v in attacked.strength.values())
    assert torch.equal(attacked.images, images) == (kind not in CHANGES_IMAGES)
    if kind not in ("learned", *CHANGES_MASKS):
        assert torch.equal(attacked.masks, masks)
    if kind in CHANGES_MASKS:
        assert attacked.strength["mask_change"] > 0
        assert 0.3 < attacked.strength["offset_pixels"] < 4.8
    assert any(p.requires_grad for p in attacker.parameters()) == (kind in ("learned", "patch"))


@pytest.mark.parametrize("kind", ATTACK_KINDS)
def test_each_kind_runs_under_bf16_autocast_with_one_object(fitted, kind):
    images, embedding, masks, valid = scene(batch=1)
    masks, valid = masks[:, :1], valid[:, :1]
    with torch.autocast("cpu", torch.bfloat16):
        attacked = build(AttackConfig(kind=kind))(images, embedding, masks, valid, loss_fn=loss_fn(fitted, masks))
        fitted.loss(attacked.images, attacked.masks).backward()
    assert attacked.images.dtype == torch.float32
    assert attacked.images.isfinite().all()


def test_random_attacks_stay_within_the_learned_budget():
    images, embedding, masks, valid = scene()
    torch.manual_seed(22)
    displacement = build(AttackConfig(kind="random_deformation")).deformation(images, embedding, masks, valid)[2]
    assert displacement.abs().max() < 4.8
    huge = build(AttackConfig(use_deformation=False)).eval()
    with torch.no_grad():
        huge.style.mlp[-1].bias.fill_(1e6)
    most = (huge(images, embedding, masks, valid).images - images).abs()
    change = (build(AttackConfig(kind="random_style"))(images, embedding, masks, valid).images - images).abs()
    assert change.mean() < most.mean()


def test_noise_has_the_given_sigma():
    images, *rest = scene()
    change = build(AttackConfig(kind="noise", noise_sigma=0.1))(images, *rest).images - images
    assert change.std().item() == pytest.approx(0.1, rel=0.05)
    assert abs(change.mean().item()) < 5e-3


def test_pgd_climbs_within_its_ball_and_beats_noise_of_the_same_size(fitted):
    images, embedding, masks, valid = scene()
    torch.manual_seed(23)
    attacker = build(AttackConfig(kind="pgd"))
    with torch.no_grad():  # as in validation: it turns gradients on for itself
        attacked = attacker(images, embedding, masks, valid, loss_fn=loss_fn(fitted, masks)).images
    assert (attacked - images).abs().max() <= 0.03 + 1e-6
    signs = images + 0.03 * torch.randn_like(images).sign()
    clean, noisy = fitted.loss(images, masks), fitted.loss(signs, masks)
    assert fitted.loss(attacked, masks) - clean > 3 * (noisy - clean).abs()
    assert not attacked.requires_grad


def test_pgd_leaves_no_gradient_in_the_model(fitted):
    images, embedding, masks, valid = scene()
    fitted.zero_grad()
    build(AttackConfig(kind="pgd"))(images, embedding, masks, valid, loss_fn=loss_fn(fitted, masks))
    assert all(p.grad is None for p in fitted.parameters())
    with pytest.raises(ValueError, match="loss_fn"):
        ProjectedGradient(1, 0.1, 0.1)(images, None)


def test_patch_is_a_square_of_the_right_size_somewhere():
    torch.manual_seed(24)
    patch, images = AdversarialPatch(side=0.25), torch.full((4, 3, SIZE, SIZE), 9.0)
    result = patch(images, None)
    changed = (result != images).all(1)
    corners = set()
    for b in range(4):
        rows, columns = changed[b].any(1).nonzero()[:, 0], changed[b].any(0).nonzero()[:, 0]
        assert len(rows) == len(columns) == 16
        assert changed[b].sum() == 16 * 16
        box = result[b, :, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        torch.testing.assert_close(
            box, F.interpolate(1.8 * patch.texture.tanh()[None], size=(16, 16), mode="bilinear")[0]
        )
        corners.add((rows[0].item(), columns[0].item()))
    assert len(corners) > 1


def test_minimising_steps_of_the_patch_raise_the_loss(fitted):
    images, _, masks, _ = scene()
    patch = AdversarialPatch(side=0.3)
    optimizer = torch.optim.Adam(patch.parameters(), lr=0.1)

    def loss():
        torch.manual_seed(25)
        return fitted.loss(patch(images, None), masks)

    before = loss().item()
    for _ in range(10):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert loss().item() > before + 1e-3


def test_a_learned_deformation_needs_its_blocks():
    with pytest.raises(RuacError, match="use_deformation: true, expected false"):
        build_attacker(AttackConfig(), feature_dim=DIM)
    build_attacker(AttackConfig(use_deformation=False), feature_dim=DIM)


def test_config_survives_yaml_and_overrides(tmp_path):
    config = load_config(AttackConfig, None, ["kind=random", "style.graph.weight=0.2", "deformation.epsilon=0.1"])
    save_config(config, tmp_path / "attack.yaml")
    assert load_config(AttackConfig, tmp_path / "attack.yaml") == config
    assert config.style.graph.weight == 0.2


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"kind": "learnt"}, "kind"),
        ({"use_style": False, "use_deformation": False}, "use_style"),
        ({"noise_sigma": -1.0}, "noise_sigma"),
        ({"pgd_steps": 0}, "pgd_steps"),
        ({"patch_side": 0.0}, "patch_side"),
    ],
)
def test_impossible_settings_are_refused(changes, names):
    with pytest.raises(RuacError, match=names):
        replace(AttackConfig(), **changes).validate()
