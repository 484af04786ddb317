"""Plans: what they stand for, and how mistakes in them are named."""

import json
from pathlib import Path

import pytest
import yaml

from ruac.backbone.load import ROOT
from ruac.base.config import load_config
from ruac.base.errors import RuacError
from ruac.studies.reproduce.plan import PlanConfig

PLAN = {
    "source": "somewhere",
    "domains": ["domains"],
    "sweeps": [{"name": "own"}],
    "rows": [{"name": "vanilla"}, {"name": "ruac", "train": "configs/train/ruac.yaml"}],
}


def load(tmp_path, **changes):
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(PLAN | changes))
    return load_config(PlanConfig, path)


def rows(*added):
    return {"rows": [*PLAN["rows"], *added]}


def test_first_seeds_of_all_rows_are_trained_first(plan):
    assert [run.name for run in plan.runs()] == ["bayes-0", "ruac-0", "ruac-1"]
    settings = plan.runs()[2].settings()
    assert (settings.engine.seed, settings.source, settings.engine.cpu) == (1, "somewhere", True)
    assert settings.out == str(plan.runs()[2].folder)
    assert plan.runs()[0].settings().engine.steps == 7


def test_test_time_rows_pass_through_to_the_sweep(tmp_path):
    added = (
        {"name": "twice", "of": "ruac", "seeds": [1], "model": {"backbone": "nano"}},
        {"name": "small", "seeds": [0, 1], "model": {"backbone": "seed{seed}.yaml"}},
    )
    plan = load(tmp_path, seeds=[0, 1], **rows(*added))
    entries = {model.name: model.entry for model in plan.models()}
    assert list(entries) == ["vanilla", "ruac-0", "ruac-1", "twice-1", "small-0", "small-1"]
    assert entries["vanilla"] == {"name": "vanilla", "backbone": "nano"}
    export = str(Path(plan.out) / "runs" / "ruac-1" / "export")
    assert entries["twice-1"] == {"name": "twice-1", "export": export, "backbone": "nano"}
    assert entries["small-1"] == {"name": "small-1", "backbone": "seed1.yaml"}


def test_sweep_overrides_keep_awkward_paths(tmp_path):
    plan = load(tmp_path, domains=["a, b: c"], source="it's", validation_split="val")
    given = dict(pair.split("=", 1) for pair in plan.sweep_overrides(plan.sweeps[0], plan.models(), tmp_path))
    assert json.loads(given["domains"]) == ["a, b: c"]
    assert json.loads(given["reference"]) == ["it's@val"]
    assert [model["name"] for model in json.loads(given["models"])] == ["vanilla", "ruac-0"]


@pytest.mark.parametrize("name", ["nano", "paper", "smoke"])
def test_shipped_plans_are_possible(name):
    given = ["source=SRC", "domains=[DOMAINS]"]
    plan = load_config(PlanConfig, ROOT / "configs" / "reproduce" / f"{name}.yaml", given)
    assert len(plan.runs()) >= 2


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"domain": ["x"]}, r"plan.yaml: unknown key 'domain'; did you mean 'domains'"),
        (rows({"name": "x", "trian": "y"}), r"unknown key 'rows\[2\].trian'; did you mean 'rows\[2\].train'"),
        (rows({"name": "x", "of": "ruca"}), "row 'x': of: unknown name 'ruca'; did you mean 'ruac'"),
        (rows({"name": "x", "of": "ruac", "seeds": [3]}), "row 'x': seeds: row 'ruac' has no seed 3"),
        (rows({"name": "x", "train": "a.yaml", "of": "ruac"}), "row 'x': has train= and of="),
        (rows({"name": "x", "overrides": ["a=b"]}), "row 'x': overrides: belong to a training"),
        (rows({"name": "x", "train": "no.yaml"}), "row 'x': .*no.yaml: config file not found"),
        (
            rows({"name": "x", "train": "configs/train/ruac.yaml", "overrides": ["engine.stepz=3"]}),
            "row 'x': override 'engine.stepz=3': unknown key 'engine.stepz'; did you mean 'engine.steps'",
        ),
        (rows({"name": "x", "model": {"expert": "y"}}), "row 'x': model: unknown key 'expert'; did you mean 'export'"),
        (rows({"name": "ruac"}), "rows: names occur twice"),
        (rows({"name": "ruac-0"}), "a name with its seed equals another row's name"),
        ({"rows": PLAN["rows"][1:]}, "rows: expected one named 'vanilla'"),
        ({"sweeps": [{"name": "a", "rows": ["ruacc"]}]}, "sweep 'a': rows: unknown name 'ruacc'; did you mean 'ruac'"),
        ({"sweeps": [{"name": "a", "replay": "b"}, {"name": "b"}]}, "sweep 'a': replay: unknown name 'b'"),
        ({"sweeps": [{"name": "a", "overrides": ["protocol.click=1"]}]}, "did you mean 'protocol.clicks'"),
        ({"compare_with": ["vanila"]}, "compare_with: unknown name 'vanila'; did you mean 'vanilla'"),
        ({"domains": []}, "at least one entry under domains"),
    ],
)
def test_mistakes_are_named(tmp_path, changes, complaint):
    with pytest.raises(RuacError, match=complaint):
        load(tmp_path, **changes)
