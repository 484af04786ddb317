"""Training that is killed at random moments and resumed ends as if nothing had happened."""

import time
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from killing import KILLS, killed_at_random
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import Dataset

from ruac.base.errors import RuacError
from ruac.base.files import held
from ruac.training import engine
from ruac.training.engine import LAST, EngineConfig, load_checkpoint, train

pytestmark = pytest.mark.usefixtures("fresh_accelerator")


@dataclass
class Config:
    engine: EngineConfig = field(default_factory=EngineConfig)


class Numbers(Dataset):
    """Item n is a function of n."""

    def __len__(self):
        return 1 << 40

    def __getitem__(self, n):
        return {"x": torch.from_numpy(np.random.default_rng(n).normal(size=64).astype(np.float32))}


class Task(nn.Module):
    """A layer of 64 KB whose loss draws from the global generator; each step takes a while."""

    def __init__(self, pause=0.0):
        super().__init__()
        torch.manual_seed(5)
        self.head, self.pause = nn.Linear(64, 256), pause

    def forward(self, batch, progress):
        time.sleep(self.pause)
        answer = self.head(batch["x"])
        return {"loss": (answer - torch.randn_like(answer)).square().mean()}

    def parameter_groups(self):
        return [{"name": "head", "params": list(self.head.parameters()), "lr": 1e-2, "weight_decay": 0.1}]

    def trained_modules(self):
        return {"head": self.head}

    def validate(self, accelerator):
        return {"score": float(torch.rand(()))}

    def panels(self, batch):
        return {}


def run(out, task=None, *, steps=12, resume=None, **overrides):
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    config = EngineConfig(cpu=True, batch_size=2, log_every=1, save_every=1, validate_every=3, steps=steps, **overrides)
    resume = (out / LAST).exists() if resume is None else resume
    return train(task or Task(), Numbers(), config, out, run_config=Config(config), resume=resume)


def losses(out):
    reader = EventAccumulator(str(out / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    return [(event.step, event.value) for event in reader.Scalars("train/loss")]


def everything(path):
    """All tensors and numbers of a checkpoint, in order."""
    found = []

    def visit(value):
        if isinstance(value, dict):
            for key in sorted(value, key=str):
                found.append(key)
                visit(value[key])
        elif isinstance(value, list):
            for each in value:
                visit(each)
        else:
            found.append(value.tolist() if isinstance(value, torch.Tensor) else value)

    visit(torch.load(path, weights_only=True))
    return found


@pytest.mark.slow
@pytest.mark.timeout(240 + 120 * KILLS)
def test_killed_at_random_moments(tmp_path):
    whole = tmp_path / "whole"
    run(whole, Task(pause=0.05))

    def check(out):
        assert everything(out / LAST) == everything(whole / LAST)
        assert losses(out) == losses(whole)
        assert not [path for path in out.rglob(".*.tmp")]

    killed_at_random(lambda out: run(out, Task(pause=0.05)), check, tmp_path / "parts", seed=1)


def test_two_runs_on_one_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "PATIENCE", 0.1)
    run(tmp_path / "run", steps=2)
    before = (tmp_path / "run" / LAST).read_bytes()
    with held(tmp_path / "run"), pytest.raises(RuacError, match="run: another run is at work here"):
        run(tmp_path / "run", steps=4)
    assert (tmp_path / "run" / LAST).read_bytes() == before
    run(tmp_path / "run", steps=4)
    assert load_checkpoint(tmp_path / "run" / LAST, Task()) == 4


def test_a_checkpoint_cut_at_any_page_is_refused_and_stays(tmp_path):
    path = run(tmp_path / "run", steps=2)
    whole = path.read_bytes()
    assert len(whole) > 10 * 4096
    for length in range(0, len(whole), 4096):
        path.write_bytes(whole[:length])
        with pytest.raises(RuacError, match=r"last\.pt: does not fit this run: \w"):
            load_checkpoint(path, Task())
    path.write_bytes(whole)
    assert load_checkpoint(path, Task()) == 2
