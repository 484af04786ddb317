"""Head against attackers on a frozen, random, tiny backbone."""

from itertools import pairwise

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import default_collate

from ruac.backbone import Backbone, clicks
from ruac.backbone.nano import Nano
from ruac.backbone.prompts import BOX_FIRST, BOX_SECOND, OBJECT
from ruac.base.errors import RuacError
from ruac.data.augment import MEAN, STD
from ruac.data.synthetic.scenes import SceneConfig, SceneDataset
from ruac.data.training import TrainingSet
from ruac.training import adversarial
from ruac.training.adversarial import AdversarialTask, LossConfig, TrainConfig
from ruac.training.attack import ATTACK_KINDS, AttackConfig
from ruac.training.curriculum import CurriculumConfig, Phase
from ruac.training.engine import LAST, EngineConfig, train
from ruac.training.panels import attack_panel
from ruac.training.validation import ValidationConfig
from ruac.uncertainty import BayesianConfig, head_config
from ruac.uncertainty.evidential import EvidentialLossConfig

SIDE = 64
ALL_AT_ONCE = (Phase(1.0, 1.0, 0.05, 1.0),)


pytestmark = pytest.mark.usefixtures("fresh_accelerator")


def scenes(count=6, seed=0):
    return SceneDataset(count, seed=seed, config=SceneConfig(side=SIDE))


def make_task(*, kind="learned", phases=ALL_AT_ONCE, validation=None, check=None, **fields):
    """The real task; a narrow nano with random weights stands in for a trained backbone."""
    torch.manual_seed(7)
    backbone = Backbone(Nano(image_size=SIDE, width=64, mlp=64), name="nano")
    fields = {"source": "scenes", "corrections": 1, "head": BayesianConfig(logit_scale=True)} | fields
    fields |= {"validation": check or ValidationConfig()}
    config = TrainConfig(attack=AttackConfig(kind=kind), curriculum=CurriculumConfig(phases=list(phases)), **fields)
    return AdversarialTask(backbone, config, validation)


def stream(task, seed=0):
    return TrainingSet(scenes(), task.config.data, side=SIDE, seed=seed, length=1 << 40)


def make_batch(task, size=2):
    data = stream(task)
    return default_collate([data[n] for n in range(size)])


def run(out, task, *, resume=False, **overrides):
    config = EngineConfig(**({"cpu": True, "batch_size": 2, "log_every": 1, "panel_every": 0} | overrides))
    return train(task, stream(task), config, out, run_config=task.config, resume=resume)


def snapshot(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def changed(before, module):
    return {name for name, tensor in module.state_dict().items() if not torch.equal(before[name], tensor)}


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


@pytest.mark.parametrize("branch", ["clean", "adversarial"])
@pytest.mark.parametrize("term", ["segmentation", "kl", "scoring", "alignment", "evidential"])
def test_a_term_that_is_not_finite_stops_the_training_and_is_named(tmp_path, monkeypatch, term, branch):
    if (term, branch) == ("alignment", "clean"):
        pytest.skip("the clean branch has no such term")
    fields = {"corrections": 0}
    if term == "evidential":
        loss = LossConfig(sampled=0.0, scoring=0.0, evidential=EvidentialLossConfig(weight=1.0))
        fields |= {"head": head_config("evidential"), "loss": loss}
    terms = adversarial.objective_terms

    def poisoned(*args, **kwargs):
        found = terms(*args, **kwargs)
        if kwargs["adversarial"] == (branch == "adversarial"):
            found[term] = found[term] * torch.nan
        return found

    monkeypatch.setattr(adversarial, "objective_terms", poisoned)
    with pytest.raises(RuacError, match=rf"^step 1: the loss is not finite, nor is {branch}/{term}; training stopped"):
        run(tmp_path / "run", make_task(**fields), steps=2, batch_size=1)
    assert not (tmp_path / "run" / LAST).exists()


def test_every_phase_of_the_paper_runs_with_its_terms():
    task = make_task(phases=CurriculumConfig().phases)
    batch, seen = make_batch(task), []
    for progress in (0.0, 0.1999, 0.2, 0.2999, 0.3, 0.9999):
        terms = task(batch, progress)
        assert torch.isfinite(terms["loss"])
        seen.append(("clean/kl" in terms, "adversarial/total" in terms, "attack/image_change" in terms))
    assert seen == [(False,) * 3] * 2 + [(True, False, False)] * 2 + [(True,) * 3] * 2


@pytest.mark.parametrize("kind", ATTACK_KINDS)
def test_no_tensor_of_the_backbone_changes_in_training(tmp_path, kind):
    task = make_task(kind=kind)
    backbone, head = snapshot(task.backbone), snapshot(task.head)
    attacker = snapshot(task.attacker)
    run(tmp_path / "run", task, steps=2)
    assert not changed(backbone, task.backbone)
    assert all(parameter.grad is None for parameter in task.backbone.parameters())
    assert {name.split(".")[0] for name in changed(head, task.head)} == {"pixel_shape", "weight_shape", "log_scale"}
    moved = {name.split(".")[0] for name in changed(attacker, task.attacker)}
    assert moved == {"learned": {"style", "deformation"}, "patch": {"pixels"}}.get(kind, set())
    assert not any("frozen" in name for name in changed(attacker, task.attacker))


def test_with_a_decoder_rate_the_decoders_transformer_moves_and_nothing_else(tmp_path):
    task = make_task(decoder_rate=1e-3)
    before = snapshot(task.backbone)
    path = run(tmp_path / "run", task, steps=2)
    moved = changed(before, task.backbone)
    assert moved
    assert all(name.startswith("sam.sam_mask_decoder.transformer.") for name in moved)
    assert set(torch.load(path, weights_only=True)["modules"]) == {"head", "attacker", "transformer"}


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


@pytest.mark.parametrize("kind", ["learned", "pgd"])
def test_one_step_in_bf16(tmp_path, kind):
    task = make_task(kind=kind)
    before = snapshot(task.head)
    run(tmp_path / "run", task, steps=1, precision="bf16")
    assert changed(before, task.head)
    assert all(p.dtype == torch.float32 and torch.isfinite(p).all() for p in task.parameters())


def test_resume_is_exact_and_everything_is_logged(tmp_path):
    phases = [Phase(0.25, 1.0, 0.0, 0.0), Phase(0.5, 1.0, 0.05, 0.0), Phase(1.0, 0.8, 0.05, 0.2)]
    settings = {"steps": 8, "save_every": 4, "validate_every": 4, "panel_every": 4}

    def observed():
        task = make_task(phases=phases, validation=scenes(2, seed=1), check=ValidationConfig(images=2, clicks=2))
        task.losses = []
        task.register_forward_hook(lambda _module, _inputs, terms: task.losses.append(terms["loss"].item()))
        return task

    whole, first, second = observed(), observed(), observed()
    run(tmp_path / "whole", whole, **settings)

    def stop(_module, _inputs):
        if len(first.losses) == 6:
            raise KeyboardInterrupt

    first.register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", first, **settings)
    run(tmp_path / "parts", second, resume=True, **settings)
    assert second.losses == whole.losses[4:]
    for module, tensors in torch.load(tmp_path / "whole" / LAST, weights_only=True)["modules"].items():
        assert not changed(tensors, second.trained_modules()[module]), module

    reader = EventAccumulator(str(tmp_path / "parts" / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    scalars = set(reader.Tags()["scalars"])
    terms = {
        f"{branch}/{term}" for branch in ("clean", "adversarial") for term in ("segmentation", "kl", "scoring", "total")
    }
    strength = {f"attack/{name}" for name in ("image_change", "style_change", "offset_pixels", "mask_change")}
    assert {f"train/{name}" for name in terms | strength | {"loss", "adversarial/alignment"}} <= scalars
    groups = ("head", "head_vectors", "attacker", "attacker_vectors")
    assert {f"{kind}/{group}" for kind in ("gradient", "rate") for group in groups} <= scalars
    assert {
        f"validation/{model}/{name}" for model in ("vanilla", "head") for name in ("j", "f", "band_auroc")
    } <= scalars
    assert [event.step for event in reader.Scalars("train/loss")] == list(range(1, 9))
    for group in ("attacker", "attacker_vectors"):  # no adversarial branch in the first half
        norms = [event.value for event in reader.Scalars(f"gradient/{group}")]
        assert not any(norms[:4])
        assert all(norms[4:])
    assert "panels/attack" in reader.Tags()["images"]


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
