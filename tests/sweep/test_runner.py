"""What is swept: models, domains and their names, and settings that are impossible."""

import json
import re
import shutil
from dataclasses import replace

import pandas as pd
import pytest
import torch
from PIL import Image

from ruac.errors import RuacError
from ruac.report import build_report
from ruac.sweep import runner
from ruac.sweep.runner import ModelConfig, load_models, open_domains


def test_vanilla_is_added_where_no_model_is(config, tmp_path, sweep):
    out = sweep(replace(config, models=config.models[1:], limit=1, out=str(tmp_path / "alone")))
    manifest = json.loads((out / "manifest.json").read_text())
    assert [m["name"] for m in manifest["models"]] == ["vanilla", "ruac"]


def test_equal_backbones_become_one(config):
    models = load_models(config, torch.device("cpu"))
    assert models["vanilla"].backbone is models["ruac"].backbone


def test_a_folder_of_domains_stands_for_all_of_them(shelf):
    both, first, second = (str(shelf / "domains" / name) for name in ("", "first", "second"))
    assert list(open_domains([both])) == ["first", "second"]
    assert list(open_domains([second, f"{first}@val"])) == ["second", "first@val"]
    with pytest.raises(RuacError, match="another domain is named 'first'"):
        open_domains([both, first])
    with pytest.raises(RuacError, match=r"nowhere: domain folder not found"):
        open_domains(["nowhere"])


def test_a_split_that_is_given_as_a_path_lends_its_last_part(tmp_path):
    for kind in ("JPEGImages", "Annotations"):
        (tmp_path / "davis" / kind / "clip").mkdir(parents=True)
        Image.new("L", (4, 4), 1).save(tmp_path / "davis" / kind / "clip" / "0.png")
    for year in ("2016", "2017"):
        (tmp_path / "davis" / "ImageSets" / year).mkdir(parents=True)
        (tmp_path / "davis" / "ImageSets" / year / "val.txt").write_text("clip\n")
    assert list(open_domains([f"{tmp_path / 'davis'}@2017/val"])) == ["davis@val"]


@pytest.mark.parametrize("name", [".first", "fir|st", "first@v|l"])
def test_domains_that_cannot_be_names_of_files_are_refused(shelf, tmp_path, name):
    folder = name.partition("@")[0]
    shutil.copytree(shelf / "domains" / "first", tmp_path / folder)
    with pytest.raises(RuacError, match=rf"domain '{re.escape(name)}': expected a name without") as caught:
        open_domains([str(tmp_path / name)])
    assert str(tmp_path / folder) in str(caught.value)


def test_dots_inside_names_are_kept_apart_down_to_the_report(config, shelf, tmp_path, monkeypatch, sweep):
    for number in ("1", "1.5"):
        shutil.copytree(shelf / "domains" / "first", tmp_path / "domains" / f"town.v{number}")
    models = runner.load_models(config, torch.device("cpu"))
    monkeypatch.setattr(runner, "load_models", lambda *_: models | {"ruac.v2": models["ruac"]})
    out = sweep(replace(config, domains=[str(tmp_path / "domains")], limit=1, panels=0))
    page = build_report(out).read_text()
    for region in ("image", "band"):
        for domain in ("town.v1", "town.v1.5"):
            assert f"Risk against coverage, {domain}, {region}" in page
            for model in ("ruac", "ruac.v2"):
                assert (out / "sums" / f"{model}.total.{region}.{domain}.npz").is_file()


def test_a_reference_is_swept_but_counted_nowhere(config, shelf, finished, sweep):
    first, second = (str(shelf / "domains" / name) for name in ("first", "second"))
    out = sweep(replace(config, domains=[first], reference=[second]))
    table, every = (pd.read_csv(folder / "domains.csv") for folder in (out, finished))
    assert list(table.domain.unique()) == ["second", "first"]
    assert (table.reference == (table.domain == "second")).all()
    assert not every.reference.any()
    keys = ["domain", "model", "score", "region"]
    ours, theirs = (frame.drop(columns="reference").set_index(keys).sort_index() for frame in (table, every))
    pd.testing.assert_frame_equal(ours, theirs)
    manifest = json.loads((out / "manifest.json").read_text())
    assert [(d["name"], d["reference"]) for d in manifest["domains"]] == [("second", True), ("first", False)]
    with pytest.raises(RuacError, match="reference: 'second' is also the name of a domain"):
        sweep(replace(config, reference=[second]))


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"models": []}, "at least one entry"),
        ({"models": [ModelConfig("a")]}, "expected backbone= .* or export="),
        ({"models": [ModelConfig("a", "nano"), ModelConfig("a", "tiny")]}, "occur twice"),
        ({"models": [ModelConfig("a/b", "nano")]}, "a name without"),
        ({"models": [ModelConfig("vanilla", export="x")]}, "'vanilla' is for"),
        ({"limit": -1}, "limit: -1"),
        ({"panels": -1}, "panels: -1"),
        ({"replay": "x:y"}, "replay: expected together"),
    ],
)
def test_impossible_settings_are_named(config, fields, complaint):
    with pytest.raises(RuacError, match=complaint):
        replace(config, **fields).validate()
