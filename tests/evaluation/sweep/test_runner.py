"""What is swept: models, domains and their names, and settings that are impossible."""

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from ruac.base.config import load_config
from ruac.base.errors import RuacError
from ruac.data.domains import CARDS
from ruac.evaluation.report import build_report
from ruac.evaluation.sweep import opened
from ruac.evaluation.sweep.config import ModelConfig, SweepConfig
from ruac.evaluation.sweep.estimate import estimate
from ruac.evaluation.sweep.open import open_domains
from ruac.evaluation.sweep.opened import load_models
from ruac.evaluation.sweep.runner import run_sweep


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
    models = load_models(config, torch.device("cpu"))
    monkeypatch.setattr(opened, "load_models", lambda *_: models | {"ruac.v2": models["ruac"]})
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


def test_corrupted_domains_are_swept_beside_the_clean_ones_and_counted_nowhere(config, shelf, finished, sweep):
    out = sweep(replace(config, domains=[str(shelf / "domains" / "second")], corruptions=["fog:5"], limit=2))
    table = pd.read_csv(out / "domains.csv")
    assert list(table.domain.unique()) == ["second", "second+fog5"]
    assert (table.reference == (table.domain == "second+fog5")).all()
    entries = json.loads((out / "manifest.json").read_text())["domains"]
    fog5 = {"of": "second", "name": "fog", "severity": "5", "level": 5}
    assert [entry["corruption"] for entry in entries] == [None, fog5]
    objects = pd.read_parquet(out / "objects.parquet")
    clean, fog = (objects[objects.domain == name].reset_index() for name in ("second", "second+fog5"))
    assert clean[["image", "object", "area"]].equals(fog[["image", "object", "area"]])
    assert not clean.predicted_iou.equals(fog.predicted_iou)
    theirs = pd.read_parquet(finished / "objects.parquet")
    theirs = theirs[(theirs.domain == "second") & theirs.image.isin(clean.image)].reset_index()
    assert clean.predicted_iou.equals(theirs.predicted_iou)


def test_native_downloads_by_name_and_root(tmp_path):
    """Cityscapes is one of them; its layout as the card has it."""
    for kind, name in (("leftImg8bit", "leftImg8bit"), ("gtFine", "gtFine_instanceIds")):
        folder = tmp_path / "city" / kind / "val" / "aachen"
        folder.mkdir(parents=True)
        picture = np.zeros((8, 16), np.uint16)
        picture[2:4, 3:9] = 26001  # the first car
        image = Image.fromarray(picture) if kind == "gtFine" else Image.new("RGB", (16, 8))
        image.save(folder / f"aachen_000000_000019_{name}.png")
    (name, dataset), *others = open_domains([f"cityscapes:{tmp_path / 'city'}"]).items()
    assert (name, len(dataset), others) == ("cityscapes", 1, [])
    assert dataset[0].masks.sum() == 12
    assert list(open_domains([f"cityscapes:{tmp_path / 'city'}@val"])) == ["cityscapes@val"]
    with pytest.raises(RuacError, match=r"cityscape:/x: domain folder not found; NAME:ROOT needs .*cityscapes"):
        open_domains(["cityscape:/x"])


def test_an_estimate_counts_what_is_left_and_writes_nothing(config, finished, shelf, tmp_path):
    def table(text):
        return [line.split()[:4] for line in text.splitlines()]

    records = open_domains([str(shelf / "domains")])["first"].records[: config.limit]
    objects = sum(len(record.object_ids) for record in records)
    text = estimate(config)
    assert not (tmp_path / "out").exists()
    expected = [
        ["first", "3", str(objects), "3"],
        ["second", "3", str(objects), "3"],
        ["all", "6", str(2 * objects), "6"],
    ]
    assert table(text)[1:] == expected
    assert text.count("MB") == 3
    shutil.copytree(finished, tmp_path / "out")
    next((tmp_path / "out" / "chunks" / "second").iterdir()).unlink()
    assert [row[3] for row in table(estimate(config))[1:]] == ["0", "3", "3"]


def test_an_estimate_names_what_it_cannot_read(config, shelf, tmp_path):
    shutil.copytree(shelf / "domains", tmp_path / "domains")
    for image in (tmp_path / "domains" / "first" / "images").iterdir():
        image.write_bytes(b"")
    text = estimate(replace(config, domains=[str(tmp_path / "domains")]))
    assert "first/images" in text.partition("cannot be read: ")[2]
    assert text.splitlines()[1].split()[4] == "?"


def test_the_config_of_native_downloads_names_every_domain(monkeypatch):
    file, models = (
        Path(__file__).parents[3] / "configs" / "sweep" / "native.yaml",
        ["models=[{name: a, backbone: nano}]"],
    )
    monkeypatch.setenv("RUAC_DATA", "/data")
    entries = load_config(SweepConfig, file, models).domains
    assert entries == [f"{name}:/data/{name}" for name, card in CARDS.items() if card.group != "Source"]
    monkeypatch.delenv("RUAC_DATA")
    with pytest.raises(RuacError, match=r"domains\[0\].*RUAC_DATA"):
        load_config(SweepConfig, file, models)


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
        ({"native_splits": "sam2"}, "native_splits: 'sam2', expected one of: ruac, sam1"),
        ({"corruptions": ["fog:9"]}, "corruption 'fog:9'"),
        ({"replay": "x:y"}, "replay: expected together"),
    ],
)
def test_impossible_settings_are_named(config, fields, complaint):
    with pytest.raises(RuacError, match=complaint):
        replace(config, **fields).validate()


def test_a_name_that_is_no_text_fails_alone(config, shelf, tmp_path):
    """File names are bytes; such a picture is listed as failed, and the others have their rows."""
    root = tmp_path / "set"
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
        for name in (b"good.png", b"caf\xe9.png"):
            picture = np.zeros((16, 16, 3) if kind == "images" else (16, 16), np.uint8)
            picture[4:9, 4:9] = 1
            with open(os.path.join(os.fsencode(root / kind), name), "wb") as stream:
                Image.fromarray(picture).save(stream, "PNG")
    out = run_sweep(replace(config, domains=[str(root)], out=str(tmp_path / "out"), limit=0))
    (failure,) = json.loads((out / "manifest.json").read_text())["failed"]
    assert "the name is not UTF-8" in failure["error"]
    assert set(pd.read_parquet(out / "objects.parquet").image) == {"good"}
