"""Every configs/train/*.yaml trains what it says, gives the losses it gave before, and survives export.

``python tests/train/test_variants.py [NAME ...]`` rewrites the losses of the named or of all configs in
reference_losses.json: run it after a change that is meant to change a loss, and look at the difference.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.utils.data import default_collate

from ruac.backbone import Backbone, BackboneConfig
from ruac.backbone.lora import merge_lora
from ruac.backbone.nano import Nano
from ruac.base.config import load_config
from ruac.base.errors import RuacError
from ruac.data.synthetic.scenes import SceneConfig, SceneDataset
from ruac.data.training import TrainingSet
from ruac.evaluation.protocol import ProtocolConfig
from ruac.evaluation.score import Scores, evaluate_image
from ruac.inference import export
from ruac.inference.model import UncertainSam
from ruac.inference.predictor import Predictor
from ruac.training.adversarial import AdversarialTask, TrainConfig, train_head
from ruac.training.export_run import export_run

CONFIGS = {path.stem: path for path in sorted((Path(__file__).parents[2] / "configs" / "train").glob("*.yaml"))}
REFERENCE = Path(__file__).with_name("reference_losses.json")
RELATIVE_TOLERANCE = 1e-3  # measured without oneDNN: 2e-7; another processor may add up in another order
STEPS, SIDE, BATCH = 5, 64, 2
GAINS = (1e6, 1e6, 3e4, 3e3)  # coarsest level first: maps fade in a random trunk, and masks would not depend on them


pytestmark = pytest.mark.usefixtures("fresh_accelerator")


def tiny_backbone():
    """Random weights, logits of a few."""
    torch.manual_seed(7)
    nano = Nano(image_size=SIDE, width=64, mlp=64)
    with torch.no_grad():
        for level, gain in zip(nano.image_encoder.neck.convs, GAINS, strict=True):
            level.conv.weight *= gain
        for network in nano.sam_mask_decoder.output_hypernetworks_mlps:
            network.layers[-1].weight *= 50
    return Backbone(nano, name="nano")


def tiny_task(name):
    return AdversarialTask(
        tiny_backbone(), load_config(TrainConfig, CONFIGS[name], ["source=scenes", "corrections=1"]), None
    )


def scenes():
    return SceneDataset(6, seed=0, config=SceneConfig(side=SIDE))


def train_steps(task, steps=STEPS):
    """Losses before each step, and the names of the parameters that ever had a gradient; as the engine trains."""
    data = TrainingSet(scenes(), task.config.data, side=SIDE, seed=0, length=steps * BATCH)
    optimizer, losses, reached = torch.optim.AdamW(task.parameter_groups()), [], set()
    for step in range(steps):
        torch.manual_seed(step)
        batch = default_collate([data[step * BATCH + index] for index in range(BATCH)])
        loss = task(batch, step / steps)["loss"]
        optimizer.zero_grad()
        loss.backward()
        reached |= {name for name, p in task.named_parameters() if p.grad is not None and (p.grad != 0).any()}
        torch.nn.utils.clip_grad_norm_([p for p in task.parameters() if p.requires_grad], task.config.engine.clip)
        optimizer.step()
        losses.append(loss.item())
    return losses, reached


@pytest.mark.parametrize("name", CONFIGS)
def test_losses_are_those_of_before_and_reach_what_is_trained(name):
    task = tiny_task(name)
    losses, reached = train_steps(task)
    assert losses == pytest.approx(json.loads(REFERENCE.read_text())[name], rel=RELATIVE_TOLERANCE)
    assert reached == {n for n, p in task.named_parameters() if p.requires_grad}
    assert all(torch.isfinite(p).all() for p in task.parameters())
    tuned = {"sam2_ft": {"decoder"}, "lora": {"lora"}, "paper": {"transformer"}}
    assert set(task.tuned) == tuned.get(name, set())
    assert set(task.trained_modules()) == ({"head"} if task.head is not None else set()) | {"attacker"} | set(
        task.tuned
    )


def test_references_are_complete_and_no_two_configs_train_the_same():
    reference = json.loads(REFERENCE.read_text())
    assert list(reference) == list(CONFIGS)
    assert np.isfinite(list(reference.values())).all()
    same = [name for name in reference if reference[name] == reference["ruac"]]
    assert same == ["quickstart", "ruac"]  # they differ in steps and batch size only
    assert len({tuple(losses) for losses in reference.values()}) == len(reference) - 1


@pytest.mark.parametrize(
    "name", ["bayes", "ruac_nonnegative", "kappa_pixel", "ur_ern", "mc_dropout", "laplace", "sam2_ft", "lora"]
)
def test_round_trip_through_export_prediction_and_sweep(name, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "build_backbone", lambda spec: tiny_backbone())
    task = tiny_task(name)
    train_steps(task, steps=2)
    vanilla = tiny_backbone().freeze()
    names = list(vanilla.state_dict())
    merge_lora(task.backbone)
    model = UncertainSam(task.backbone, task.head).eval()
    assert list(model.backbone.state_dict()) == names
    spec = BackboneConfig("nano", "nowhere.safetensors", SIDE)
    loaded = export.load_exported(export.export_model(model, spec, tmp_path / "out", with_backbone=True))

    sample = scenes()[0]
    answers = []
    for one in (model, loaded, UncertainSam(vanilla, None)):
        predictor = Predictor(one, device="cpu")
        predictor.set_image(sample.image)
        answers.append(predictor.predict(points=np.array([[20.0, 30.0]]), labels=np.array([1])))
    ours, back, plain = answers
    for key in ("masks", "scores", "logits", "probability", "uncertainty"):
        np.testing.assert_array_equal(getattr(ours, key), getattr(back, key))
        assert np.isfinite(getattr(ours, key)).all()
    keeps = name in ("bayes", "kappa_pixel", "laplace")
    assert np.array_equal(ours.logits, plain.logits) == keeps
    assert not np.array_equal(ours.probability, plain.probability)

    scores, models = Scores(), {"vanilla": UncertainSam(loaded.backbone, None), "model": loaded}
    evaluate_image(models, sample, ProtocolConfig(clicks=2), scores, domain="d")
    j = {which: [row["j"] for row in scores.rows if row["model"] == which] for which in models}
    own = {"ur_ern": {"total", "predictive_variance"}, "sam2_ft": {"entropy", "iou"}, "lora": {"entropy", "iou"}}
    assert {score for which, score, _ in scores.sums if which == "model"} == own.get(name, {"total"})
    assert (j["model"] == j["vanilla"]) or not keeps


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lora", "sam2_ft", "ur_ern"])
def test_the_tools_path_from_a_config_to_a_prediction(name, make_nano, coco_folder, tmp_path):
    save_file(make_nano().sam.state_dict(), tmp_path / "nano.safetensors")
    (tmp_path / "nano.yaml").write_text(f"checkpoint: {tmp_path / 'nano.safetensors'}\nimage_size: {SIDE}\n")
    overrides = [
        f"source={coco_folder}",
        f"out={tmp_path / 'run'}",
        f"backbone={tmp_path / 'nano.yaml'}",
        "corrections=1",
    ]
    overrides += ["train_split=train", "validation_split=val", "validation.images=1", "engine.batch_size=2"]
    overrides += ["engine.cpu=true", "engine.steps=2", "engine.warmup=0", "engine.panel_every=2"]
    train_head(load_config(TrainConfig, CONFIGS[name], overrides), resume=False)
    if name != "ur_ern":
        with pytest.raises(RuacError, match="fine-tuned"):
            export_run(tmp_path / "run", tmp_path / "out", with_backbone=False)
    loaded = export.load_exported(export_run(tmp_path / "run", tmp_path / "out", with_backbone=True))
    before, after = make_nano().sam.state_dict(), loaded.backbone.sam.state_dict()
    changed = {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"lora": {"image_encoder"}, "sam2_ft": {"sam_mask_decoder"}}.get(name, set())
    predictor = Predictor(loaded, device="cpu")
    predictor.set_image(np.zeros((40, 50, 3), np.uint8))
    assert np.isfinite(predictor.predict(box=np.array([5.0, 5, 30, 30])).uncertainty).all()


def test_head_only_exports_of_nothing_are_refused(tmp_path):
    model = UncertainSam(tiny_backbone(), None)
    with pytest.raises(RuacError, match="no uncertainty head"):
        export.export_model(model, BackboneConfig(), tmp_path / "out", with_backbone=False)


def test_the_curvature_of_laplace_comes_from_clean_images_only():
    task = tiny_task("laplace")
    train_steps(task, steps=2)
    seen = task.head.curvature.clone()
    assert (torch.linalg.eigvalsh(seen)[1:] > 0).any()
    task.head.eval()
    data = TrainingSet(scenes(), task.config.data, side=SIDE, seed=0, length=2)
    task.panels(default_collate([data[0], data[1]]))
    assert torch.equal(task.head.curvature, seen)


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("ruac", ["head.posterior=none"], "head.posterior: none and a frozen backbone"),
        ("laplace", ["head.logit_scale=false"], "head.logit_scale: expected true for laplace"),
        ("ruac", ["head.posterior=evidential", "head.logit_scale=false"], "loss.evidential.weight: 0.0 with"),
        ("ruac", ["loss.evidential.weight=1"], "loss.evidential.weight: 1.0 with head.posterior signed"),
        ("ur_ern", ["loss.scoring=1"], "loss.sampled, loss.scoring: expected 0"),
        ("lora", ["lora.rank=-1"], "lora.rank"),
        ("lora", ["lora.alpha=0"], "lora.alpha"),
        ("lora", ["lora_rate=-1"], "lora_rate"),
        ("paper", ["loss.sampled=0"], "at least one above 0"),
    ],
)
def test_settings_that_do_not_go_together_are_named(name, overrides, message):
    with pytest.raises(RuacError) as info:
        load_config(TrainConfig, CONFIGS[name], ["source=x", *overrides])
    assert message in str(info.value)


def write_reference(names):
    losses = json.loads(REFERENCE.read_text()) if REFERENCE.exists() else {}
    losses |= {name: [float(f"{loss:.7g}") for loss in train_steps(tiny_task(name))[0]] for name in names or CONFIGS}
    rows = [f"  {json.dumps(name)}: {losses[name]}" for name in CONFIGS]
    REFERENCE.write_text("{\n" + ",\n".join(rows) + "\n}\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    write_reference(sys.argv[1:])
