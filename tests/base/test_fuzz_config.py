"""YAML files, overrides and JSON mappings that are nearly configs."""

import time

import pytest
import yaml
from fuzzing import TEXTS, VALUES, damaged, fuzzed, nearly, survives
from hypothesis import given
from hypothesis import strategies as st

from ruac.base.config import config_from, load_config
from ruac.base.errors import RuacError
from ruac.base.files import read_json
from ruac.evaluation.sweep.config import SweepConfig
from ruac.training.adversarial import TrainConfig

CONTENT = {
    "source": "data",
    "train_split": None,
    "head": {"posterior": "signed", "kappa": "channel", "hidden": 16},
    "curriculum": {"phases": [{"until": 0.5, "clean": 1.0}, {"until": 1.0, "adversarial": 0.2}]},
    "engine": {"steps": 10, "clip": 0.1, "schedule": "linear"},
    "data": {"objects": 3},
}
SWEEP = {"domains": ["a", "b@val"], "models": [{"name": "ruac", "export": "runs/x"}], "out": "runs/y", "limit": 3}
KEYS = ["source", "head", "head.hidden", "head.posterior", "engine.steps", "curriculum.phases", "domains", "models"]


@fuzzed
@given(
    text=st.one_of(
        nearly(CONTENT).map(lambda content: yaml.safe_dump(content).encode("utf-8", "replace")),
        damaged(yaml.safe_dump(CONTENT).encode()),
        damaged(b"a: &a [1]\nhead: {<<: *a, hidden: !!int 3}\nsource: !!timestamp 2001-01-01\n"),
    )
)
def test_fuzz_yaml(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "fuzzed.yaml"
    path.write_bytes(text)
    survives(load_config, TrainConfig, path)


@fuzzed
@given(
    item=st.one_of(
        st.builds("{}={}".format, st.sampled_from(KEYS), st.one_of(TEXTS, VALUES.map(str), VALUES.map(repr))),
        st.builds("{}={}".format, TEXTS, TEXTS),
        TEXTS,
    ),
    cls=st.sampled_from([TrainConfig, SweepConfig]),
)
def test_fuzz_overrides(item, cls):
    survives(load_config, cls, None, [item])


@fuzzed
@given(content=st.one_of(nearly(SWEEP), VALUES))
def test_fuzz_mappings(content):
    survives(config_from, SweepConfig, content, "here")


BOMBS = {
    "aliases": "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" if n else "a0: &a0 [x]\n" for n in range(9)),
    "itself": "source: &a [*a]\n",
    "brackets": "source: " + "[" * 100_000,
    "digits": "engine: {steps: " + "1" * 100_000 + "}\n",
    "time": "engine: {steps: !!timestamp 1-1}\n",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_small_file_that_asks_for_much(tmp_path, bomb):
    path = tmp_path / "bomb.yaml"
    path.write_text(BOMBS[bomb])
    start = time.process_time()
    with pytest.raises(RuacError, match=r"bomb\.yaml: not a readable YAML file"):
        load_config(TrainConfig, path)
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"[" * 100_000, "broken JSON"),
        (b"1" * 10_000, "broken JSON"),
        (b"\xff\xff", "broken JSON"),
        (None, "elsewhere"),
    ],
)
def test_json_that_cannot_be_read_is_named(tmp_path, content, what):
    path = tmp_path / "file.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RuacError, match=rf"file\.json: {what}"):
        read_json(path, "elsewhere")
    with pytest.raises(RuacError, match="cannot be read"):
        read_json(tmp_path)
