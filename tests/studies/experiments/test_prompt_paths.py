"""Paths against the reference: paired differences, post-processing as seen in J, and work that is not done twice."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch
from builders import decoded_of, sample_of, with_head

from ruac.backbone import Features
from ruac.base.config import load_config
from ruac.base.errors import RuacError
from ruac.data.open import open_dataset
from ruac.evaluation.metrics import jaccard
from ruac.evaluation.protocol import ProtocolConfig
from ruac.evaluation.score import Encodings, Scores, evaluate_image
from ruac.inference.model import UncertainSam
from ruac.studies.experiments import prompt_paths
from ruac.studies.experiments.prompt_paths import (
    PathConfig,
    PromptPathsConfig,
    compare,
    default_paths,
    run_prompt_paths,
    score_image,
)
from ruac.uncertainty import BayesianConfig

PATHS = [
    PathConfig("reference", ProtocolConfig(clicks=1)),
    PathConfig("random", ProtocolConfig(clicks=1, first_click="random")),
    PathConfig("fallback", ProtocolConfig(clicks=1, multimask=False), stability=0.98),
]


def frame_of(changes, images=6, objects=3):
    """Rows of a reference of 0.5, and of one path per function of (domain, image, object) that gives its change."""
    rows = []
    for name, change in {"reference": lambda d, i, o: 0.0, **changes}.items():
        for domain in range(2):
            for image in range(images):
                for key in range(objects):
                    moved = change(domain, image, key)
                    place = {"domain": f"d{domain}", "image": str(image), "object": str(key)}
                    rows.append({"path": name, "model": "vanilla"} | place | {"j": 0.5 + moved, "f": 0.3 + 3 * moved})
    return pd.DataFrame(rows)


def row_of(table, path, domain, kind="path"):
    (row,) = table[(table.path == path) & (table.domain == domain) & (table.kind == kind)].to_dict("records")
    return row


def test_known_differences():
    frame = frame_of({"up": lambda d, i, o: 0.1, "domain": lambda d, i, o: 0.2 * d}).sample(frac=1, random_state=0)
    frame["path"] = pd.Categorical(frame.path, ["reference", "up", "domain"])
    frame = frame.sort_values("path", kind="stable")  # the rows of a path come in any order
    table = compare(frame, reference="reference", baseline="vanilla", unit="image", replicates=50, seed=0)
    assert set(table.kind) == {"path"}
    for domain in ("d0", "d1", "mean"):
        row = row_of(table, "up", domain)
        for name, value in (("j", 0.1), ("f", 0.3), ("jf", 0.2)):
            assert row[f"{name}_difference"] == pytest.approx(value)
            assert (row[f"{name}_low"], row[f"{name}_high"]) == pytest.approx((value, value))
        assert row["jf"] == pytest.approx(0.6)
    assert row_of(table, "domain", "d0")["j_difference"] == 0
    assert row_of(table, "domain", "mean")["j_difference"] == pytest.approx(0.1)
    assert (row_of(table, "up", "d0")["objects"], row_of(table, "up", "mean")["objects"]) == (18, 36)


def test_objects_of_an_image_are_drawn_together():
    """Three copies of one object per image carry no more than one: intervals over objects would be too narrow."""
    change = np.random.default_rng(0).normal(size=(2, 40))
    once = frame_of({"x": lambda d, i, o: change[d, i]}, images=40, objects=1)
    thrice = frame_of({"x": lambda d, i, o: change[d, i]}, images=40, objects=3)
    widths = {}
    for name, frame in (("once", once), ("thrice", thrice)):
        for unit in ("image", "object"):
            table = compare(frame, reference="reference", baseline="vanilla", unit=unit, replicates=500, seed=0)
            row = row_of(table, "x", "mean")
            widths[name, unit] = row["j_high"] - row["j_low"]
    assert widths["thrice", "image"] == pytest.approx(widths["once", "image"])
    assert widths["thrice", "object"] < 0.7 * widths["thrice", "image"]
    expected = 2 * 1.96 * np.sqrt((change.var(axis=1) / 40).sum()) / 2  # of the mean of two independent means
    assert widths["once", "image"] == pytest.approx(expected, rel=0.15)


def test_methods_are_compared_on_the_same_path():
    frame = frame_of({"up": lambda d, i, o: 0.1})
    ours = frame.assign(model="ruac", j=frame.j + np.where(frame.path == "up", 0.05, 0.02))
    frame = pd.concat([frame, ours])
    table = compare(frame, reference="reference", baseline="vanilla", unit="image", replicates=10, seed=0)
    assert row_of(table, "up", "mean", "method")["j_difference"] == pytest.approx(0.05)
    row = row_of(table, "reference", "mean", "method")
    assert (row["j_difference"], row["model"], row["against"]) == (pytest.approx(0.02), "ruac", "vanilla")


class Speckled(torch.nn.Module):
    """A backbone that always answers with the truth, a hole in it and a speck beside it."""

    def __init__(self, mask):
        super().__init__()
        self.image_size, self.channels, self.mask_stride = mask.shape[0], 1, 1
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.logit = torch.tensor(np.where(mask, 5.0, -5.0), dtype=torch.float32)

    def frame(self, size):
        return self.image_size, self.image_size

    def encode(self, images):
        return Features(torch.zeros(1, 1, 4, 4), [])

    def decode(self, features, prompts):
        return decoded_of(self.logit.expand(len(prompts.points), 4, -1, -1))


def test_post_processing_is_seen_in_the_score():
    truth = np.zeros((40, 40), bool)
    truth[10:30, 10:30] = True
    answer = truth.copy()
    answer[15:17, 15:17], answer[2, 2:5] = False, True
    sample = sample_of(truth)
    models = {"vanilla": UncertainSam(Speckled(answer), None)}
    for area, mask in ((0, answer), (3, truth & answer), (4, truth)):
        path = PathConfig("x", ProtocolConfig(clicks=1), area=area / truth.size)
        (row,) = score_image(models, sample, path, Encodings(sample.image), domain="d")
        assert row["j"] == jaccard(mask[None], truth[None])[0]
    assert row["f"] == 1


@pytest.fixture
def config(coco_folder, nano, tmp_path, monkeypatch, fresh_accelerator):
    models = {"vanilla": UncertainSam(nano, None), "ruac": with_head(nano, BayesianConfig(posterior="nonnegative"))}
    monkeypatch.setattr(prompt_paths, "load_models", lambda config, device: models)
    monkeypatch.setattr(prompt_paths, "CHUNK", 2)
    fields = {"domains": [str(coco_folder)], "limit": 3, "replicates": 10, "cpu": True, "paths": PATHS}
    return PromptPathsConfig(out=str(tmp_path / "out"), **fields)


def test_run_agrees_with_the_sweep_and_resumes(config, coco_folder, monkeypatch):
    out = run_prompt_paths(config)
    table = pd.read_csv(out / "prompt_paths.csv")
    content = json.loads((out / "prompt_paths.json").read_text())
    assert len(content["rows"]) == len(table)
    assert {"prompt_paths.png", "config.yaml", "environment.json"} <= {path.name for path in out.iterdir()}
    scores, models = Scores(), prompt_paths.load_models(None, None)
    for position in range(3):
        sample = open_dataset(coco_folder)[position]
        evaluate_image(models, sample, PATHS[1].protocol, scores, domain="shapes", regions=("band",))
    swept = pd.DataFrame(scores.rows).groupby("model")[["j", "f"]].mean()
    levels = pd.DataFrame(content["levels"]).query("path == 'random'").set_index("model")
    for model in models:
        assert levels.loc[model, ["j", "f"]].tolist() == pytest.approx(swept.loc[model].tolist())

    calls = []
    original = prompt_paths.score_image
    monkeypatch.setattr(
        prompt_paths, "score_image", lambda *a, **k: calls.append((a[1].record.id, a[2].name)) or original(*a, **k)
    )
    chunks = sorted((out / "random").rglob("*.npz"))
    assert len(chunks) == 2
    chunks[1].unlink()
    run_prompt_paths(config)
    assert calls == [("2.png", "random")]
    pd.testing.assert_frame_equal(pd.read_csv(out / "prompt_paths.csv"), table)

    changed = [*PATHS[:2], dataclasses.replace(PATHS[2], stability=0.5)]
    with pytest.raises(RuacError, match=r"fallback.*made with another"):
        run_prompt_paths(dataclasses.replace(config, paths=changed))


def test_default_paths_are_valid_and_differ():
    config = load_config(PromptPathsConfig, overrides=["domains=[x]"])
    assert config.paths == default_paths()
    assert config.paths[0] == PathConfig("reference")
    settings = [dataclasses.astuple(dataclasses.replace(path, name="")) for path in config.paths]
    assert all(settings.count(setting) == 1 for setting in settings)


def test_impossible_values():
    for wrong, message in (
        ({"stability": 0.9}, "protocol.multimask=false"),
        ({"area": 1.0}, "expected shares"),
        ({"name": "a/b"}, "expected a name"),
        ({"protocol": ProtocolConfig(next_click="replay")}, "expected own_error"),
    ):
        with pytest.raises(RuacError, match=message):
            PathConfig(**({"name": "x"} | wrong)).validate()
    for wrong in ({"domains": []}, {"unit": "pixel"}, {"paths": [PathConfig("a"), PathConfig("a")]}, {"limit": -1}):
        with pytest.raises(RuacError):
            PromptPathsConfig(**({"domains": ["x"]} | wrong)).validate()
