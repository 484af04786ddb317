"""Pretraining of the small backbone, a few steps of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ruac.backbone.nano import Nano, load_nano
from ruac.base.errors import RuacError
from ruac.data.augment import AugmentConfig
from ruac.data.open import open_dataset
from ruac.data.training import TrainingDataConfig
from ruac.evaluation.protocol import ProtocolConfig
from ruac.evaluation.score import Scores, evaluate_image
from ruac.inference.model import UncertainSam
from ruac.training import engine
from ruac.training.engine import LAST, EngineConfig
from ruac.training.pretrain import PretrainConfig, PretrainTask, pretrain

pytestmark = pytest.mark.usefixtures("fresh_accelerator")


@pytest.fixture
def config(coco_folder, tmp_path):
    engine = EngineConfig(steps=6, batch_size=2, clip=1.0, cpu=True, log_every=1, validate_every=3, save_every=3)
    still = AugmentConfig(crop=1.0, flip=False, rotation=0, shear=0, brightness=0, contrast=0, saturation=0, hue=0)
    return PretrainConfig(
        source=str(coco_folder),
        out=str(tmp_path / "run"),
        image_size=64,
        corrections=1,
        validation_images=2,
        data=TrainingDataConfig(objects=2, augment=still),
        engine=engine,
    )


def scalars(config, name):
    path = f"{config.out}/tensorboard"
    return [event.value for event in EventAccumulator(path, size_guidance={"scalars": 0}).Reload().Scalars(name)]


def test_the_loss_falls(config):
    config = replace(config, engine=replace(config.engine, steps=20, schedule="constant", validate_every=20))
    pretrain(config, resume=False)
    losses = scalars(config, "train/loss")
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert len(scalars(config, "validation/j_3")) == 1


def test_validation_is_the_sweeps_own_evaluation(config, coco_folder, make_nano):
    backbone, dataset = make_nano(), open_dataset(coco_folder, split="val")
    task = PretrainTask(backbone, config, dataset)
    values = task.validate(Accelerator(cpu=True))
    for clicks in (1, 2, 3):
        scores = Scores()
        for sample in dataset:
            evaluate_image(
                {"vanilla": UncertainSam(backbone, None)}, sample, ProtocolConfig(clicks=clicks), scores, domain="val"
            )
        mean = np.mean([row["j"] for row in scores.rows])
        assert mean > 0
        assert values[f"j_{clicks}"] == pytest.approx(mean, rel=1e-3)


def test_resume_repeats_an_uninterrupted_run_to_the_last_bit(config, tmp_path, monkeypatch):
    whole = pretrain(replace(config, out=str(tmp_path / "whole")), resume=False)
    save = engine.save_checkpoint

    def interrupted(path, task, optimizer, step):
        save(path, task, optimizer, step)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(engine, "save_checkpoint", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pretrain(config, resume=False)
    parts = pretrain(config, resume=True)
    assert torch.load(parts, weights_only=True)["step"] == 6
    ours, theirs = (torch.load(path, weights_only=True)["modules"]["backbone"] for path in (parts, whole))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    assert scalars(config, "train/loss") == scalars(replace(config, out=str(tmp_path / "whole")), "train/loss")


def test_what_is_trained_and_what_is_not(config):
    path = pretrain(replace(config, engine=replace(config.engine, steps=1, validate_every=0)), resume=False)
    torch.manual_seed(config.engine.seed)
    start = Nano(image_size=64).state_dict()
    end = torch.load(path, weights_only=True)["modules"]["backbone"]
    moved = {name for name, tensor in end.items() if not torch.equal(tensor, start[name])}
    assert not any(name.startswith("memory_encoder.") for name in moved)
    for part in ("image_encoder.trunk.", "image_encoder.neck.", "sam_mask_decoder.", "sam_prompt_encoder."):
        assert any(name.startswith(part) for name in moved), part


def test_starts_from_a_checkpoint(config, tmp_path):
    first = pretrain(config, resume=False)
    frozen = EngineConfig(steps=1, batch_size=1, cpu=True, validate_every=0)
    second = replace(
        config, init=str(first), out=str(tmp_path / "second"), rate=0.0, trunk_rate=0.0, weight_decay=0.0, engine=frozen
    )
    pretrain(second, resume=False)
    ours, theirs = Nano(image_size=64), Nano(image_size=64)
    load_nano(ours, tmp_path / "second" / LAST)
    load_nano(theirs, first)
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, theirs.state_dict()[name]), name
    with pytest.raises(RuacError, match=r"nowhere\.pt"):
        pretrain(replace(second, init="nowhere.pt", out=str(tmp_path / "third")), resume=False)


@pytest.mark.parametrize(("key", "value"), [("loss_stride", 3), ("corrections", -1)])
def test_impossible_settings_are_named(key, value):
    with pytest.raises(RuacError, match=key):
        PretrainConfig(source="x", **{key: value}).validate()
