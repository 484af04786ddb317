"""Runs of the adversarial training: what moves, what is logged, and that a resumed run is the same run."""

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_builders import changed, make_task, run, scenes, snapshot

from ruac.base.errors import RuacError
from ruac.training import adversarial
from ruac.training.adversarial import LossConfig
from ruac.training.attack import ATTACK_KINDS
from ruac.training.curriculum import Phase
from ruac.training.engine import LAST
from ruac.training.validation import ValidationConfig
from ruac.uncertainty import head_config
from ruac.uncertainty.evidential import EvidentialLossConfig

pytestmark = pytest.mark.usefixtures("fresh_accelerator")


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
