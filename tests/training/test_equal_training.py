"""A training step is one of all its samples, whoever draws them.

Sums over processes and micro-batches have another order, so weights agree to 1e-5 of their size and not to the bit; a
number of data workers changes nothing at all.
"""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
import torch.distributed as dist
from processes import together
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import Dataset

from ruac.training.engine import LAST, EngineConfig, train

STEPS = 8


@dataclass
class Config:
    engine: EngineConfig = field(default_factory=EngineConfig)


class Pictures(Dataset):
    """Item n is a function of n."""

    def __len__(self):
        return 1 << 40

    def __getitem__(self, n):
        x = torch.from_numpy(np.random.default_rng(n).normal(size=(3, 8, 8)).astype(np.float32))
        return {"x": x, "y": (x.mean(0, keepdim=True) > 0).float()}


class Task(nn.Module):
    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(5)
            self.net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, 1, 3, padding=1))

    def forward(self, batch, progress):
        return {"loss": nn.functional.binary_cross_entropy_with_logits(self.net(batch["x"]), batch["y"])}

    def parameter_groups(self):
        return [{"name": "net", "params": list(self.net.parameters()), "lr": 1e-2, "weight_decay": 0.1}]

    def trained_modules(self):
        return {"net": self.net}

    def validate(self, accelerator):
        return {}

    def panels(self, batch):
        return {}


def trained(out, processes, **settings):
    """Weights and logged losses."""
    config = EngineConfig(cpu=True, steps=STEPS, log_every=1, validate_every=0, panel_every=0, **settings)
    together(processes, lambda: train(Task(), Pictures(), config, out, run_config=Config(config), resume=False))
    weights = torch.load(out / LAST, weights_only=True)["modules"]["net"]
    reader = EventAccumulator(str(out / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    return weights, np.array([event.value for event in reader.Scalars("train/loss")])


@pytest.mark.dist
@pytest.mark.skipif(not dist.is_available(), reason="needs torch.distributed")
def test_processes_and_micro_batches_agree(tmp_path):
    weights, losses = trained(tmp_path / "alone", 1, batch_size=6)
    assert len(losses) == STEPS
    before = Task().net.state_dict()
    assert all((weights[name] - before[name]).abs().max() > 1e-2 for name in weights)  # much has happened
    for number, (processes, batch, accumulate) in enumerate([(2, 3, 1), (3, 2, 1), (1, 2, 3)]):
        settings = {"batch_size": batch, "accumulate": accumulate}
        ours, logged = trained(tmp_path / f"{number}", processes, **settings)
        for name, value in weights.items():
            torch.testing.assert_close(ours[name], value, rtol=1e-5, atol=1e-6, msg=lambda m, s=settings: f"{s}: {m}")
        if accumulate == 1:  # of several micro-batches the last is logged
            np.testing.assert_allclose(logged, losses, rtol=1e-5)


def test_data_workers_change_nothing(tmp_path):
    (weights, losses), (ours, logged) = (trained(tmp_path / f"{n}", 1, batch_size=2, workers=n) for n in (0, 2))
    assert all(torch.equal(ours[name], value) for name, value in weights.items())
    assert logged.tolist() == losses.tolist()
