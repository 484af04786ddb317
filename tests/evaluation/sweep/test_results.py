"""What a sweep leaves behind: rows, sums, manifest, pictures."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ruac.data.identity import dataset_hash
from ruac.data.open import open_dataset
from ruac.evaluation.metrics import ReliabilitySums
from ruac.evaluation.metrics.certainty import rss
from ruac.evaluation.sweep.panels import _cases
from ruac.evaluation.sweep.runner import run_sweep


def test_results_are_complete_and_sorted(config, finished, shelf):
    objects = pd.read_parquet(finished / "objects.parquet")
    expected = [
        (domain, record.id, key)
        for domain in ("first", "second")
        for record in open_dataset(shelf / "domains" / domain).records[: config.limit]
        for key in record.object_ids
    ]
    for model in ("vanilla", "ruac"):
        rows = objects[objects.model == model]
        assert list(zip(rows.domain, rows.image, rows.object, strict=True)) == expected
    table = pd.read_csv(finished / "domains.csv")
    keys = [
        (d, *rest)
        for d in ("first", "second")
        for rest in (("vanilla", "entropy"), ("vanilla", "iou"), ("ruac", "total"))
    ]
    assert list(table.domain.unique()) == ["first", "second"]
    assert set(zip(table.domain, table.model, table.score, strict=True)) == set(keys)
    assert len(table) == 2 * len(keys)
    for row in table.itertuples():
        own = objects[(objects.domain == row.domain) & (objects.model == row.model)]
        assert (row.images, row.objects) == (config.limit, len(own))
        assert row.j == pytest.approx(own.j.mean())
        assert row.jf == pytest.approx((own.j.mean() + own.f.mean()) / 2)
        with np.load(finished / "sums" / f"{row.model}.{row.score}.{row.region}.{row.domain}.npz") as saved:
            metrics = ReliabilitySums.from_arrays(saved).compute()
        terms = {"miou": row.j, "ece": metrics["ece"]}
        terms |= {k: metrics[f"{k}_image"] for k in ("p_acc_cert", "p_unc_inacc")}  # at each image's own median
        assert row.rss == pytest.approx(rss(**terms), nan_ok=True)
        for name in ("ece", "brier", "nll", "mean_uncertainty"):
            assert getattr(row, name) == pytest.approx(metrics[name], nan_ok=True)


def test_manifest(config, finished, shelf):
    manifest = json.loads((finished / "manifest.json").read_text())
    assert manifest["protocol"] | {"clicks": 2, "limit": config.limit, "replay": None} == manifest["protocol"]
    assert [(m["name"], m["kind"]) for m in manifest["models"]] == [("vanilla", "vanilla"), ("ruac", "signed")]
    assert manifest["models"][0]["checkpoint"] == str(shelf / "backbone.yaml")
    assert all(len(m["sha256"]) == 64 for m in manifest["models"])
    assert [(d["name"], d["images"]) for d in manifest["domains"]] == [
        ("first", config.limit),
        ("second", config.limit),
    ]
    objects = pd.read_parquet(finished / "objects.parquet")
    assert all(
        d["objects"] == len(objects[(objects.domain == d["name"]) & (objects.model == "ruac")])
        for d in manifest["domains"]
    )
    assert manifest["environment"]["versions"]["torch"]


def test_cases_hold_the_most_extreme_objects_first():
    rows = pd.DataFrame({"j": [0.5, 0.1, 0.9, 0.3], "band_error": [0.2, 0.5, 0.3, 0.9]})
    rows["band_uncertainty"] = [0.1, 0.6, 0.0, 0.2]
    chosen = [(case, row.Index) for case, row in _cases(rows, 2)]
    expected = {"worst": [1, 3], "best": [2, 0], "overconfident": [3, 2]}
    assert chosen == [(case, index) for case, own in expected.items() for index in own]


def test_panels(finished):
    index = json.loads((finished / "panels" / "index.json").read_text())
    assert [(e["domain"], e["case"]) for e in index] == [
        (d, c) for d in ("first", "second") for c in ("worst", "best", "overconfident")
    ]
    objects = pd.read_parquet(finished / "objects.parquet")
    for entry in index:
        own = objects[(objects.domain == entry["domain"]) & (objects.image == entry["image"])]
        own = own[own.object == entry["object"]].set_index("model")
        with np.load(finished / entry["file"]) as panel:
            for model in ("vanilla", "ruac"):
                assert panel[f"j.{model}"] == own.j[model]
                mask, truth = panel[f"mask.{model}"], panel["truth"]
                assert (mask & truth).sum() / (mask | truth).sum() == pytest.approx(own.j[model], abs=0.02)
            assert panel["points"].reshape(-1).tolist() == own.points["ruac"].tolist()


@pytest.fixture(params=["coco", "folder", "folder of folders", "davis"])
def data(request, tmp_path, coco_folder):
    """A small data set of each format: its folder, an image and a file of annotations."""
    root = tmp_path / "data"
    if request.param == "coco":
        shutil.copytree(coco_folder, root)
        return root, root / "images" / "3.png", root / "annotations.json"
    image, mask = {
        "folder": ("images/a.png", "masks/a.png"),
        "folder of folders": ("images/a.png", "masks/a/x.png"),
        "davis": ("JPEGImages/a/0.png", "Annotations/a/0.png"),
    }[request.param]
    for name in (image, mask):
        (root / name).parent.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(root / image)
    pixels = np.zeros((8, 8), np.uint8)
    pixels[2:4] = 1
    Image.fromarray(pixels).save(root / mask)
    return root, root / image, root / mask


def test_the_hash_of_a_data_set_follows_images_and_annotations_but_not_the_place(data, tmp_path):
    root, image, annotations = data
    before = dataset_hash(open_dataset(root))
    shutil.copytree(root, tmp_path / "moved")
    assert dataset_hash(open_dataset(tmp_path / "moved")) == before
    if annotations.suffix == ".png":
        with Image.open(annotations) as mask:
            moved = np.roll(np.asarray(mask), 1, axis=0)  # the same object one row lower
        Image.fromarray(moved).save(annotations)
    else:
        content = json.loads(annotations.read_text())
        content["annotations"][0]["segmentation"] = content["annotations"][1]["segmentation"]
        annotations.write_text(json.dumps(content))
    after = dataset_hash(open_dataset(root))
    assert after != before
    Image.new("RGB", (64, 48), "red").save(image)  # another picture under the same name
    dataset = open_dataset(root)
    assert dataset_hash(dataset) not in (before, after)
    seen = {before, after, dataset_hash(dataset)}
    image.unlink()
    assert dataset_hash(dataset) not in seen


def test_a_reference_named_like_a_corruption_is_none(config, shelf, tmp_path):
    """What is a corruption stands in the data: a folder may be named anything."""
    for name in ("first", "first+fog3"):
        shutil.copytree(shelf / "domains" / "first", tmp_path / "more" / name)
    out = run_sweep(
        replace(
            config,
            domains=[str(shelf / "domains" / "second")],
            reference=[str(tmp_path / "more")],
            corruptions=["fog:3"],
            out=str(tmp_path / "out"),
            limit=1,
        )
    )
    found = {entry["name"]: entry["corruption"] for entry in json.loads((out / "manifest.json").read_text())["domains"]}
    assert found.pop("second+fog3") == {"of": "second", "name": "fog", "severity": "3", "level": 3}
    assert set(found) == {"first", "first+fog3", "second"}
    assert not any(found.values())
