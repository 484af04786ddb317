"""The loop itself, on a toy task: schedule, resume, accumulation, failures, logs."""

import json
import math
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import Dataset

from ruac.base.config import load_config
from ruac.base.errors import RuacError
from ruac.training import engine
from ruac.training.engine import LAST, EngineConfig, load_checkpoint, rate_share, train

pytestmark = pytest.mark.usefixtures("fresh_accelerator")


@dataclass
class ToyConfig:
    note: str = "toy"
    engine: EngineConfig = field(default_factory=EngineConfig)


class Numbers(Dataset):
    """Item n is a function of n."""

    def __init__(self, poisoned=()):
        self.seen, self.poisoned = [], poisoned

    def __len__(self):
        return 1 << 40

    def __getitem__(self, n):
        self.seen.append(n)
        x = torch.from_numpy(np.random.default_rng(n).normal(size=3).astype(np.float32))
        return {"x": x * (math.nan if n in self.poisoned else 1), "y": x.sum()[None]}


class Toy(nn.Module):
    """A linear head and an "attacker"; noise makes the loss depend on the global generator."""

    def __init__(self, noise=0.1):
        super().__init__()
        torch.manual_seed(5)
        self.head, self.attacker, self.noise = nn.Linear(3, 1), nn.Linear(3, 1), noise
        self.losses, self.validated, self.dirty = [], [], None

    def forward(self, batch, progress):
        answer = self.head(batch["x"]) + 0.1 * self.attacker(batch["x"])
        error = (answer + self.noise * torch.randn_like(answer) - batch["y"]).square().mean()
        loss = self.dirty(error) if self.dirty else error
        self.losses.append(loss.item())
        return {"loss": loss, "clean/error": error, "attack/strength": answer.abs().mean()}

    def parameter_groups(self):
        return [
            {"name": name, "params": list(getattr(self, name).parameters()), "lr": rate, "weight_decay": 0.1}
            for name, rate in (("head", 1e-2), ("attacker", 3e-2))
        ]

    def trained_modules(self):
        return {"head": self.head, "attacker": self.attacker}

    def validate(self, accelerator):
        self.validated.append(torch.rand(3))  # whatever validation draws must not move the training
        return {"score": 0.5}

    def panels(self, batch):
        return {"picture": torch.rand(3, 8, 8)}


def run(out, task, *, data=None, resume=False, **overrides):
    config = EngineConfig(**({"cpu": True, "batch_size": 2, "clip": 10.0, "log_every": 1} | overrides))
    config.validate()
    return train(task, data or Numbers(), config, out, run_config=ToyConfig(engine=config), resume=resume)


def weights(task):
    return {name: tensor.clone() for name, tensor in task.state_dict().items()}


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


def events(out):
    reader = EventAccumulator(str(out / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    return reader.Reload()


def test_rates_reach_the_optimiser(tmp_path):
    run(tmp_path / "run", Toy(), steps=8, warmup=2, save_every=0, panel_every=0)
    reader = events(tmp_path / "run")
    for name, rate in (("head", 1e-2), ("attacker", 3e-2)):
        logged = [event.value for event in reader.Scalars(f"rate/{name}")]
        config = EngineConfig(steps=8, warmup=2)
        np.testing.assert_allclose(logged, [rate * rate_share(step, config) for step in range(8)], rtol=1e-6)


@pytest.mark.parametrize("workers", [0, 1])
def test_resume_is_exact(tmp_path, workers):
    settings = {"steps": 7, "accumulate": 2, "warmup": 2, "save_every": 3, "validate_every": 2, "panel_every": 2}
    whole, first, second = Toy(), Toy(), Toy()
    run(tmp_path / "whole", whole, workers=workers, **settings)

    def stop(error):  # 5 steps of 2 micro-batches are done; the last checkpoint is that of step 3
        if len(first.losses) == 10:
            raise KeyboardInterrupt
        return error

    first.dirty = stop
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", first, workers=workers, **settings)
    run(tmp_path / "parts", second, workers=workers, resume=True, **settings)
    assert first.losses == whole.losses[:10]
    assert second.losses == whole.losses[6:]
    assert_same(weights(second), weights(whole))
    states = [torch.load(tmp_path / part / LAST, weights_only=True) for part in ("whole", "parts")]
    assert states[0]["step"] == states[1]["step"] == 7
    moments = [state["optimizer"]["state"] for state in states]
    for index in moments[0]:
        assert_same(moments[0][index], moments[1][index])


def test_steps_logged_twice_are_read_once(tmp_path):
    task = Toy()
    task.dirty = lambda error: error * (math.nan if len(task.losses) == 5 else 1)
    with pytest.raises(RuacError):
        run(tmp_path / "run", task, steps=7, save_every=3, panel_every=0)
    run(tmp_path / "run", Toy(), steps=7, save_every=3, panel_every=0, resume=True)
    assert [event.step for event in events(tmp_path / "run").Scalars("train/loss")] == list(range(1, 8))


def test_every_sample_is_drawn_once_and_in_order(tmp_path):
    data = Numbers()
    run(tmp_path / "run", Toy(), data=data, steps=3, accumulate=2)
    assert data.seen == list(range(12))


def test_accumulation_equals_one_large_batch(tmp_path):
    one, many = Toy(noise=0.0), Toy(noise=0.0)
    run(tmp_path / "one", one, steps=3, batch_size=8)
    run(tmp_path / "many", many, steps=3, batch_size=2, accumulate=4)
    for name, tensor in weights(one).items():
        torch.testing.assert_close(tensor, weights(many)[name], rtol=0, atol=1e-6)


def test_a_longer_run_continues_a_finished_one_and_a_finished_one_stops(tmp_path, capsys):
    run(tmp_path / "run", Toy(), steps=3, schedule="constant")
    finished = Toy()
    run(tmp_path / "run", finished, steps=3, schedule="constant", resume=True)
    assert not finished.losses
    assert "nothing left to do" in capsys.readouterr().out
    longer, whole = Toy(), Toy()
    run(tmp_path / "run", longer, steps=5, schedule="constant", resume=True)
    assert "other settings than before: steps: 5" in " ".join(capsys.readouterr().out.split())
    run(tmp_path / "whole", whole, steps=5, schedule="constant")
    assert longer.losses == whole.losses[3:]
    assert_same(weights(longer), weights(whole))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(tmp_path, value):
    task = Toy()
    good = {}

    def poison(error):
        if len(task.losses) == 4:
            good.update(weights(task))
        return error * (value if len(task.losses) == 5 else 1)

    task.dirty = poison
    with pytest.raises(RuacError, match=r"step 6: the loss is not finite.*last\.pt"):
        run(tmp_path / "run", task, steps=9, save_every=4)
    kept = Toy()
    assert load_checkpoint(tmp_path / "run" / LAST, kept) == 4
    assert_same(weights(kept), good)


@pytest.mark.parametrize(("name", "now"), [("processes", 1), ("batch_size", 2), ("accumulate", 3)])
def test_another_share_of_the_data_is_not_resumed(tmp_path, name, now):
    out = tmp_path / "run"
    path = run(out, Toy(), steps=2, accumulate=3)
    state = torch.load(path, weights_only=True)
    assert state[name] == now
    torch.save(state | {name: 8}, path)
    before, record = path.read_bytes(), (out / "config.yaml").read_text()
    with pytest.raises(RuacError, match=rf"last\.pt: made with {name}=8, this run has {name}={now}"):
        run(out, Toy(), steps=3, accumulate=3, resume=True)
    assert (path.read_bytes(), (out / "config.yaml").read_text()) == (before, record)
    assert load_checkpoint(path, Toy()) == 2  # an export does not mind


class _Explode(torch.autograd.Function):
    """Finite forward, infinite backward."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * math.inf


def test_a_gradient_that_is_not_finite_stops_before_the_step(tmp_path):
    task = Toy()
    task.dirty = lambda error: _Explode.apply(error) if len(task.losses) == 2 else error
    with pytest.raises(RuacError, match="step 3: the gradient norm is not finite in head, attacker; training stopped"):
        run(tmp_path / "run", task, steps=5, save_every=1)
    kept = Toy()
    assert load_checkpoint(tmp_path / "run" / LAST, kept) == 2
    assert_same(weights(kept), weights(task))


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])  # the last: a finite gradient, no finite norm
@pytest.mark.parametrize("part", ["head", "attacker"])
def test_the_group_whose_gradient_is_not_finite_is_named(tmp_path, part, value):
    task = Toy()
    getattr(task, part).weight.register_hook(lambda gradient: torch.full_like(gradient, value))
    message = rf"step 1: the gradient norm is not finite in {part}; training stopped, no checkpoint"
    with pytest.raises(RuacError, match=message):
        run(tmp_path / "run", task, steps=2, log_every=5)


def test_a_broken_start_says_that_nothing_was_saved(tmp_path):
    with pytest.raises(RuacError, match=r"step 1: the loss is not finite.*no checkpoint"):
        run(tmp_path / "run", Toy(), data=Numbers(poisoned={0}), steps=2)
    run(tmp_path / "run", Toy(), steps=2)  # and a run without a checkpoint is no run to protect


def test_refuses_to_overwrite_or_to_resume_nothing(tmp_path):
    with pytest.raises(RuacError, match=r"last\.pt: nothing to resume"):
        run(tmp_path / "run", Toy(), steps=1, resume=True)
    run(tmp_path / "run", Toy(), steps=1)
    before = (tmp_path / "run" / LAST).read_bytes()
    with pytest.raises(RuacError, match="already holds a run; pass --resume"):
        run(tmp_path / "run", Toy(), steps=1)
    assert (tmp_path / "run" / LAST).read_bytes() == before


@pytest.mark.parametrize("damage", ["empty", "truncated", "text", "keys", "shape", "extra"])
def test_a_checkpoint_that_does_not_fit_is_named_and_costs_nothing(tmp_path, damage):
    out = tmp_path / "run"
    path = run(out, Toy(), steps=2)
    record = (out / "config.yaml").read_text()
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-200])
    elif damage == "text":
        path.write_text("no checkpoint")
    else:
        state = torch.load(path, weights_only=True)
        if damage == "keys":
            del state["modules"]["attacker"]
        elif damage == "shape":
            state["modules"]["head"]["weight"] = torch.zeros(1, 4)
        else:
            state["modules"]["head"]["surplus"] = torch.zeros(1)
        torch.save(state, path)
    with pytest.raises(RuacError, match=r"last\.pt: does not fit this run: \w") as caught:
        run(out, Toy(), steps=3, resume=True)
    expected = {"keys": "attacker", "shape": "size mismatch for weight", "extra": "surplus"}
    assert expected.get(damage, "") in str(caught.value)
    assert (out / "config.yaml").read_text() == record


def test_an_interrupted_save_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    save, saved = torch.save, []

    def torn(state, path):
        saved.append(state["step"])
        save(state, path)
        if len(saved) == 2:
            with open(path, "r+b") as stream:
                stream.truncate(100)
            raise KeyboardInterrupt

    monkeypatch.setattr(engine.torch, "save", torn)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", Toy(), steps=6, save_every=2)
    assert saved == [2, 4]
    assert load_checkpoint(tmp_path / "run" / LAST, Toy()) == 2
    assert not [path for path in (tmp_path / "run").iterdir() if path.suffix == ".tmp"]


def test_the_last_step_is_saved_even_with_saving_off(tmp_path):
    path = run(tmp_path / "run", Toy(), steps=3, save_every=0)
    assert load_checkpoint(path, Toy()) == 3


def test_record_of_the_run(tmp_path):
    run(tmp_path / "run", Toy(), steps=2, seed=9)
    config = load_config(ToyConfig, tmp_path / "run" / "config.yaml")
    assert (config.note, config.engine.steps, config.engine.seed, config.engine.clip) == ("toy", 2, 9, 10.0)
    record = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert record["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert {"commit", "device", "command", "python"} <= record.keys()


def test_tensorboard_holds_terms_norms_rates_scores_and_pictures(tmp_path):
    task = Toy()
    run(tmp_path / "run", task, steps=5, log_every=2, validate_every=2, panel_every=4)
    reader = events(tmp_path / "run")
    scalars, images = reader.Tags()["scalars"], reader.Tags()["images"]
    for tag in ("train/loss", "train/clean/error", "train/attack/strength", "gradient/head", "gradient/attacker"):
        assert tag in scalars
    assert [event.step for event in reader.Scalars("train/loss")] == [1, 3, 5]
    np.testing.assert_allclose([event.value for event in reader.Scalars("train/loss")], task.losses[::2], rtol=1e-6)
    assert all(event.value > 0 for event in reader.Scalars("gradient/head"))
    assert [event.step for event in reader.Scalars("validation/score")] == [2, 4, 5]
    assert "panels/picture" in images
    assert [event.step for event in reader.Images("panels/picture")] == [4, 5]


def test_clipping_bounds_the_update_and_is_logged_unclipped(tmp_path):
    task = Toy(noise=0.0)
    norms = []
    task.head.weight.register_hook(lambda g: norms.append(g.norm()))
    run(tmp_path / "run", task, steps=1, clip=1e-3)
    logged = events(tmp_path / "run").Scalars("gradient/head")[0].value
    assert logged >= norms[0] > 1e-3  # the log shows what the loss asked for
    state = torch.load(tmp_path / "run" / LAST, weights_only=True)["optimizer"]["state"]
    total = math.sqrt(sum(float((s["exp_avg"] / 0.1).square().sum()) for s in state.values()))
    assert total == pytest.approx(1e-3, rel=1e-2)


IMPOSSIBLE = {"steps": 0, "batch_size": 0, "accumulate": 0, "log_every": 0, "schedule": "step", "precision": "fp16"}
IMPOSSIBLE |= {"hold": 1.0, "final_share": 1.5, "clip": math.nan, "save_every": -1, "workers": -1, "seed": -1}


@pytest.mark.parametrize("key", IMPOSSIBLE)
def test_impossible_settings_are_named(key):
    with pytest.raises(RuacError, match=f"engine.{key}"):
        EngineConfig(**{key: IMPOSSIBLE[key]}).validate()


def test_unwritable_out(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RuacError, match="cannot be written"):
        run(tmp_path / "file" / "run", Toy(), steps=1)
