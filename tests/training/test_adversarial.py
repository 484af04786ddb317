"""Head against attackers on a frozen, random, tiny backbone: what one step adds up and whom it reaches."""

from itertools import pairwise

import pytest
import torch
from training_builders import SIDE, make_batch, make_task

from ruac.backbone import clicks
from ruac.backbone.prompts import BOX_FIRST, BOX_SECOND, OBJECT
from ruac.base.errors import RuacError
from ruac.data.augment import MEAN, STD
from ruac.training import adversarial
from ruac.training.adversarial import LossConfig, TrainConfig
from ruac.training.attack import AttackConfig
from ruac.training.curriculum import CurriculumConfig, Phase
from ruac.training.panels import attack_panel
from ruac.uncertainty import head_config

pytestmark = pytest.mark.usefixtures("fresh_accelerator")


def climb_or_descend(task, batch, parameters, steps, rate):
    """Adversarial loss before each step on one batch, with the same random draws every time."""
    optimizer, values = torch.optim.Adam(parameters, lr=rate), []
    for _ in range(steps):
        torch.manual_seed(3)
        terms = task(batch, 0.9)
        values.append(terms["adversarial/total"].item())
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
    return values


@pytest.mark.parametrize("part", ["style", "deformation"])
def test_with_the_head_fixed_attackers_raise_the_adversarial_loss(monkeypatch, part):
    task = make_task(corrections=0, loss=LossConfig(sampled=0.0, scoring=1.0))
    with torch.no_grad():  # random weights hardly look at the image
        for level in task.backbone.sam.image_encoder.neck.convs:
            level.conv.weight *= 300
    attack = task.attacker.forward
    # Masks carry no gradient: held still, so that the loss is the function that is climbed.
    monkeypatch.setattr(
        task.attacker, "forward", lambda *args, **kwargs: attack(*args, **kwargs)._replace(masks=args[2])
    )
    parameters = [p for p in getattr(task.attacker, part).parameters() if p.requires_grad]
    values = climb_or_descend(task, make_batch(task), parameters, steps=8, rate=1e-3)
    drops = [max(0.0, before - after) for before, after in pairwise(values)]
    assert values[-1] - values[0] > max(5e-5, 2 * max(drops))


@pytest.mark.parametrize("posterior", ["signed", "nonnegative"])
def test_with_the_attackers_fixed_the_head_lowers_the_adversarial_loss(posterior):
    task = make_task(corrections=0, head=head_config(posterior, logit_scale=True))
    task.attacker.requires_grad_(False)
    values = climb_or_descend(task, make_batch(task), list(task.head.parameters()), steps=8, rate=1e-2)
    assert values[-1] < values[0] - 1e-3


def test_attackers_without_weights_leave_the_adversarial_branch_equal_to_the_clean_one():
    task = make_task()
    with torch.no_grad():
        for parameter in task.attacker.parameters():
            if parameter.requires_grad:
                parameter.zero_()
    batch = make_batch(task)
    task.attacker.register_forward_hook(lambda *_: torch.manual_seed(11) and None)  # the same prompts once more
    torch.manual_seed(11)
    terms = task(batch, 0.5)
    assert terms["attack/image_change"] == terms["attack/mask_change"] == 0
    for name in ("segmentation", "kl", "scoring"):
        torch.testing.assert_close(terms[f"adversarial/{name}"], terms[f"clean/{name}"], rtol=1e-5, atol=1e-7)
    assert "clean/alignment" not in terms


def test_the_loss_is_the_weighted_sum_of_what_is_logged():
    phase = Phase(1.0, 0.8, 0.05, 0.2)
    task = make_task(phases=[phase], loss=LossConfig(kl=1e-2))
    terms = task(make_batch(task), 0.5)
    clean = 0.8 * (terms["clean/segmentation"] + terms["clean/scoring"]) + terms["clean/kl"]
    parts = ("segmentation", "kl", "scoring", "alignment")
    attacked = 0.2 * sum(terms[f"adversarial/{name}"] for name in parts)
    torch.testing.assert_close(terms["loss"], clean + attacked)
    assert terms["clean/kl"] > 0


def test_every_phase_of_the_paper_runs_with_its_terms():
    task = make_task(phases=CurriculumConfig().phases)
    batch, seen = make_batch(task), []
    for progress in (0.0, 0.1999, 0.2, 0.2999, 0.3, 0.9999):
        terms = task(batch, progress)
        assert torch.isfinite(terms["loss"])
        seen.append(("clean/kl" in terms, "adversarial/total" in terms, "attack/image_change" in terms))
    assert seen == [(False,) * 3] * 2 + [(True, False, False)] * 2 + [(True,) * 3] * 2


def test_prompts_lie_on_the_warped_object_and_say_what_is_there(monkeypatch):
    drawn, corrected = [], []

    def first(masks, **kwargs):
        prompts = adversarial_first(masks, **kwargs)
        drawn.append((masks, prompts))
        return prompts

    def correct(masks, predicted):
        points, labels = adversarial_correct(masks, predicted)
        corrected.append((masks, points, labels))
        return points, labels

    adversarial_first, adversarial_correct = adversarial.first_prompts, clicks.random_correction
    monkeypatch.setattr(adversarial, "first_prompts", first)
    monkeypatch.setattr(clicks, "random_correction", correct)
    task = make_task(kind="random_deformation", corrections=2)
    task.attacker.deformation.config.epsilon = 0.25
    batch = make_batch(task, size=3)
    task(batch, 0.5)
    (clean, _), (warped, prompts) = drawn
    assert torch.equal(clean, batch["masks"][batch["valid"]])
    assert (warped != clean).flatten(1).any(dim=1).all()
    rows = torch.arange(len(warped))
    boxed = prompts.labels[:, 0] == BOX_FIRST
    x, y = prompts.points[:, 0].long().unbind(dim=1)
    assert (prompts.labels[~boxed, 0] == OBJECT).all()
    assert warped[rows, y, x][~boxed].all()
    assert (prompts.labels[boxed, 1] == BOX_SECOND).all()
    assert len(corrected) == 4
    for masks, points, labels in corrected[2:]:
        assert torch.equal(masks, warped)
        x, y = points.long().unbind(dim=1)
        assert torch.equal(warped[rows, y, x].long(), labels)


@pytest.mark.parametrize(("mode", "reaches_head"), [("attacker_only", False), ("joint", True)])
def test_alignment_reaches_whom_its_mode_says(mode, reaches_head):
    task = make_task(loss=LossConfig(alignment_mode=mode))
    term = task(make_batch(task), 0.5)["adversarial/alignment"]

    def slope(module):
        parameters = [p for p in module.parameters() if p.requires_grad]
        grads = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
        return sum(float(g.abs().sum()) for g in grads if g is not None)

    assert (slope(task.head) > 0) is reaches_head
    assert slope(task.attacker) > 0


def gradients(objective, loss, which):
    """Of one step at fixed draws: ``(attackers', head's)``; which: the term that is differentiated."""
    task = make_task(attack=AttackConfig(objective=objective), loss=loss)
    batch = make_batch(task)
    torch.manual_seed(5)
    terms = task(batch, 0.5)
    found = []
    for module in (task.attacker, task.head):
        parameters = [p for p in module.parameters() if p.requires_grad]
        slopes = torch.autograd.grad(terms[which], parameters, retain_graph=True, allow_unused=True)
        slopes = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, slopes, strict=True)]
        found.append(torch.cat([g.flatten() for g in slopes]))
    return found


@pytest.mark.parametrize(("objective", "term"), [("score", "scoring"), ("alignment", "alignment")])
def test_attackers_climb_the_term_that_is_named_and_the_head_descends_all(objective, term):
    loss = LossConfig(sampled=0.0, alignment_mode="joint")
    attackers, head = gradients(objective, loss, "loss")
    alone, _ = gradients("total", loss, f"adversarial/{term}")
    total, everything = gradients("total", loss, "loss")
    torch.testing.assert_close(attackers, alone, rtol=1e-4, atol=1e-9)
    torch.testing.assert_close(head, everything, rtol=1e-4, atol=1e-8)
    assert (total - alone).norm() > 1e-2 * alone.norm()


def test_an_objective_needs_its_term_and_a_frozen_backbone():
    for fields, message in (
        ({"attack": AttackConfig(objective="score"), "loss": LossConfig(scoring=0.0)}, "loss.scoring above 0"),
        ({"attack": AttackConfig(objective="score"), "decoder_rate": 1e-6}, "expected total"),
    ):
        with pytest.raises(RuacError, match=message):
            TrainConfig(source="scenes", **fields).validate()


@pytest.mark.parametrize("decoder_rate", [0.0, 1e-6])
@pytest.mark.parametrize("posterior", ["signed", "nonnegative"])
def test_groups_hold_every_trained_parameter_once_and_do_not_decay_vectors(posterior, decoder_rate):
    task = make_task(head=head_config(posterior, logit_scale=True), decoder_rate=decoder_rate)
    groups = task.parameter_groups()
    listed = [id(p) for group in groups for p in group["params"]]
    assert len(set(listed)) == len(listed)
    assert set(listed) == {id(p) for p in task.parameters() if p.requires_grad}
    for group in groups:
        assert all((p.ndim > 1) == (group["weight_decay"] > 0) for p in group["params"])
    owner = {id(p): group["name"] for group in groups for p in group["params"]}
    assert owner[id(task.head.log_scale)] == "head_vectors"
    rates = {group["name"].removesuffix("_vectors"): group["lr"] for group in groups}
    assert rates == {"head": 1e-4, "attacker": 1e-3} | ({"transformer": 1e-6} if decoder_rate else {})


def test_the_same_seed_gives_the_same_loss():
    losses = []
    for seed in (4, 4, 5):
        task = make_task()
        torch.manual_seed(seed)
        losses.append(task(make_batch(task), 0.5)["loss"].item())
    assert losses[0] == losses[1] != losses[2]


def test_pgd_alone_is_given_a_loss_to_climb():
    given = {}
    for kind in ("learned", "pgd"):
        task = make_task(kind=kind)
        keep = lambda _, args, kwargs, kind=kind: given.update({kind: kwargs["loss_fn"]})  # noqa: E731
        task.attacker.register_forward_pre_hook(keep, with_kwargs=True)
        task(make_batch(task), 0.5)
    assert given["learned"] is None
    assert callable(given["pgd"])


def test_the_panel_shows_five_pictures():
    generator = torch.Generator().manual_seed(0)
    clean, attacked = torch.rand(2, 3, 8, 8, generator=generator)
    truth, logit = torch.zeros(8, 8, dtype=torch.bool), torch.full((8, 8), -3.0)
    truth[2:6, 2:6], logit[2:6, 3:7] = True, 0.0
    logit[2:6, 3:7] += 1e-3  # the mask, a coin toss inside
    panel = attack_panel((clean - MEAN) / STD, (attacked - MEAN) / STD, truth, logit)
    assert panel.shape == (3, 8, 40)
    first, second, overlaid, error, uncertainty = panel.split(8, dim=2)
    torch.testing.assert_close(first, clean)
    torch.testing.assert_close(second, attacked)
    mask = logit > 0
    torch.testing.assert_close(overlaid[:, ~mask], attacked[:, ~mask])
    assert (overlaid - attacked)[:, mask].abs().mean() > 0.1
    assert torch.equal(error, (mask != truth).float().expand(3, -1, -1))
    torch.testing.assert_close(uncertainty[0][mask], torch.ones(16), atol=1e-5, rtol=0)
    assert uncertainty[0][~mask].max() < 0.3


def test_a_task_shows_what_its_attack_did():
    """Attacked at random, the second picture differs from the first, which is the batch's own."""
    task = make_task(kind="random")
    batch = make_batch(task)
    first, second, *_ = task.panels(batch)["attack"].split(SIDE, dim=2)
    torch.testing.assert_close(first, (batch["image"][0] * STD + MEAN).clamp(0, 1))
    assert (first - second).abs().mean() > 1e-3


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({"corrections": -1}, "corrections"),
        ({"box_share": 1.5}, "box_share"),
        ({"head_rate": -1.0}, "head_rate"),
        ({"weight_decay": -0.1}, "weight_decay"),
    ],
)
def test_impossible_settings_are_named(fields, key):
    with pytest.raises(RuacError, match=key):
        TrainConfig(source="scenes", **fields).validate()


@pytest.mark.parametrize(
    ("config", "key"),
    [
        (LossConfig(alignment_mode="both"), "alignment_mode"),
        (LossConfig(scoring=-1.0), "scoring"),
        (LossConfig(sampled=0.0, scoring=0.0), "at least one"),
        (CurriculumConfig([]), "until"),
        (CurriculumConfig([Phase(0.5), Phase(0.4), Phase(1.0)]), "until"),
        (CurriculumConfig([Phase(0.5), Phase(0.9)]), "until"),
        (CurriculumConfig([Phase(0.5), Phase(1.0, clean=-1.0)]), r"phases\[1\].clean"),
        (CurriculumConfig([Phase(1.0, clean=0.0)]), "nothing is trained"),
    ],
)
def test_impossible_losses_and_phases_are_named(config, key):
    with pytest.raises(RuacError, match=key):
        config.validate()
