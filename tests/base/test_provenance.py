"""The record beside every number."""

import json
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch

from ruac import __version__
from ruac.base import provenance
from ruac.base.config import load_config
from ruac.base.provenance import environment, save_record, settings_of
from ruac.uncertainty import BayesianConfig
from ruac.uncertainty.look_reader import LookReaderConfig


@dataclass
class Run:
    steps: int = 3


def test_environment(monkeypatch):
    monkeypatch.setattr(provenance, "PACKAGES", ("torch", "no-such-package"))
    record = environment()
    assert record["ruac"] == __version__
    assert record["versions"]["no-such-package"] == "absent"
    assert torch.__version__.startswith(record["versions"]["torch"])
    assert record["threads"] == torch.get_num_threads()


def test_the_commit_is_unknown_outside_a_checkout(monkeypatch):
    def absent(*_, **__):
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", absent)
    assert environment()["commit"] == "unknown"


def test_changes_of_the_working_tree_are_marked(monkeypatch):
    answers = {"status": " M file.py\n", "rev-parse": "abc\n"}

    def git(command, **_):
        return subprocess.CompletedProcess(command, 0, stdout=answers[command[3]])

    monkeypatch.setattr(subprocess, "run", git)
    assert environment()["commit"] == "abc+changes"
    answers["status"] = ""
    assert environment()["commit"] == "abc"


def test_record_holds_config_and_command(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(Path("/somewhere/tools/train.py")), "steps=5"])
    save_record(tmp_path / "run", Run(5))
    assert load_config(Run, tmp_path / "run" / "config.yaml") == Run(5)
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["command"] == "train.py steps=5"


@dataclass
class Grown:
    width: int = 3
    reach: int = field(default=1, metadata={"later": True})


def test_a_choice_that_came_later_tells_nothing_apart_where_it_was_not_made():
    assert settings_of(Grown()) == {"width": 3}
    assert settings_of(Grown(width=4, reach=2)) == {"width": 4, "reach": 2}


@pytest.mark.parametrize(("config", "name"), [(BayesianConfig(), "kappa_pool"), (LookReaderConfig(), "context")])
def test_fits_of_before_these_choices_stay_those_of_the_same_model(config, name):
    assert name not in settings_of(config)
    assert name in settings_of(replace(config, **{name: 2}))
