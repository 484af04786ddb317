"""Whole sweeps over tiny domains: restarts, replays, refusals, and the same numbers from two processes."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.distributed as dist
import yaml
from accelerate.state import AcceleratorState
from safetensors.torch import save_file

from ruac.backbone import BackboneConfig
from ruac.data.open import open_dataset
from ruac.errors import RuacError
from ruac.export import export_model
from ruac.metrics import ReliabilitySums
from ruac.model import UncertainSam
from ruac.sweep import runner
from ruac.sweep.protocol import ProtocolConfig
from ruac.sweep.runner import ModelConfig, SweepConfig, open_domains, run_sweep
from ruac.uncertainty import BayesianHead, HeadConfig

ROOT = Path(__file__).parents[2]
LIMIT = 3  # images per domain, in chunks of 2 and 1


load_models = runner.load_models
loaded = {}


def load_once(config, device):
    """Building a backbone takes longer than a sweep of three images."""
    if repr(config.models) not in loaded:
        loaded[repr(config.models)] = load_models(config, device)
    return loaded[repr(config.models)]


@pytest.fixture(autouse=True)
def _fresh_state(monkeypatch):
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setattr(runner, "CHUNK", 2)
    monkeypatch.setattr(runner, "load_models", load_once)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory, nano, coco_folder):
    """A folder with backbone.yaml, an export named head, and two domains under domains/."""
    folder = tmp_path_factory.mktemp("shelf")
    save_file(nano.sam.state_dict(), folder / "nano.safetensors")
    backbone = BackboneConfig(kind="nano", checkpoint=str(folder / "nano.safetensors"), image_size=64)
    (folder / "backbone.yaml").write_text(yaml.safe_dump(vars(backbone)))
    torch.manual_seed(3)
    head = BayesianHead(HeadConfig(), token_dim=nano.token_dim, channels=nano.channels)
    export_model(UncertainSam(nano, head), backbone, folder / "head", with_backbone=False)
    for name in ("first", "second"):
        shutil.copytree(coco_folder, folder / "domains" / name)
    return folder


@pytest.fixture
def config(shelf, tmp_path):
    return SweepConfig(
        models=[
            ModelConfig("vanilla", backbone=str(shelf / "backbone.yaml")),
            ModelConfig("ruac", export=str(shelf / "head")),
        ],
        domains=[str(shelf / "domains")],
        out=str(tmp_path / "out"),
        limit=LIMIT,
        cpu=True,
        panels=1,
        protocol=ProtocolConfig(clicks=2),
    )


def sweep(config):
    config.validate()
    return run_sweep(config)


def assert_same_results(ours, theirs):
    assert (ours / "domains.csv").read_bytes() == (theirs / "domains.csv").read_bytes()
    pd.testing.assert_frame_equal(
        pd.read_parquet(ours / "objects.parquet"), pd.read_parquet(theirs / "objects.parquet")
    )
    names = sorted(path.name for path in (ours / "sums").iterdir())
    assert names == sorted(path.name for path in (theirs / "sums").iterdir())
    for name in names:
        with np.load(ours / "sums" / name) as a, np.load(theirs / "sums" / name) as b:
            for part in a.files:
                np.testing.assert_array_equal(a[part], b[part])


def chunks(out):
    return sorted((out / "chunks").rglob("*.npz"))


def count_images(monkeypatch, fail_at=None):
    """The images evaluated from here on; the one numbered `fail_at` kills the sweep."""
    seen, evaluate = [], runner.evaluate_image

    def counted(models, sample, *args, **kwargs):
        if len(seen) == fail_at:
            raise KeyboardInterrupt
        seen.append((kwargs["domain"], sample.record.id))
        return evaluate(models, sample, *args, **kwargs)

    monkeypatch.setattr(runner, "evaluate_image", counted)
    return seen


@pytest.fixture(scope="module")
def finished(shelf, tmp_path_factory):
    """An uninterrupted sweep, for others to be compared with."""
    out = tmp_path_factory.mktemp("finished") / "out"
    models = [ModelConfig("vanilla", str(shelf / "backbone.yaml")), ModelConfig("ruac", export=str(shelf / "head"))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "CHUNK", 2)
        protocol = ProtocolConfig(clicks=2)
        return run_sweep(
            SweepConfig(models, [str(shelf / "domains")], str(out), limit=LIMIT, cpu=True, panels=1, protocol=protocol)
        )


def test_results_are_complete_and_sorted(finished, shelf):
    objects = pd.read_parquet(finished / "objects.parquet")
    expected = [
        (domain, record.id, key)
        for domain in ("first", "second")
        for record in open_dataset(shelf / "domains" / domain).records[:LIMIT]
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
        assert (row.images, row.objects) == (LIMIT, len(own))
        assert row.j == pytest.approx(own.j.mean())
        assert row.jf == pytest.approx((own.j.mean() + own.f.mean()) / 2)
        with np.load(finished / "sums" / f"{row.model}.{row.score}.{row.region}.{row.domain}.npz") as saved:
            metrics = ReliabilitySums.from_arrays(saved).compute()
        for name in ("ece", "brier", "nll", "mean_uncertainty"):
            assert getattr(row, name) == pytest.approx(metrics[name], nan_ok=True)


def test_manifest(finished, shelf):
    manifest = json.loads((finished / "manifest.json").read_text())
    assert manifest["protocol"] | {"clicks": 2, "limit": LIMIT, "replay": None} == manifest["protocol"]
    assert [(m["name"], m["kind"]) for m in manifest["models"]] == [("vanilla", "vanilla"), ("ruac", "signed")]
    assert manifest["models"][0]["checkpoint"] == str(shelf / "backbone.yaml")
    assert all(len(m["sha256"]) == 64 for m in manifest["models"])
    assert [(d["name"], d["images"]) for d in manifest["domains"]] == [("first", LIMIT), ("second", LIMIT)]
    objects = pd.read_parquet(finished / "objects.parquet")
    assert all(
        d["objects"] == len(objects[(objects.domain == d["name"]) & (objects.model == "ruac")])
        for d in manifest["domains"]
    )
    assert manifest["environment"]["versions"]["torch"]


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


@pytest.mark.parametrize(("killed_at", "kept"), [(0, 0), (1, 0), (4, 3)])
def test_a_killed_sweep_continues(config, finished, shelf, killed_at, kept):
    with pytest.MonkeyPatch.context() as patch:
        first = count_images(patch, fail_at=killed_at)
        with pytest.raises(KeyboardInterrupt):
            sweep(config)
    times = {path: path.stat().st_mtime_ns for path in chunks(Path(config.out))}
    assert not (Path(config.out) / "manifest.json").exists()
    with pytest.MonkeyPatch.context() as patch:
        second = count_images(patch)
        assert_same_results(sweep(config), finished)
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    ids = [record.id for record in open_dataset(shelf / "domains" / "first").records[:LIMIT]]
    # Nothing twice but the images of the chunk that was cut off.
    assert first[:kept] + second == [(domain, image) for domain in ("first", "second") for image in ids]


def test_only_missing_chunks_are_done_again(config, finished, tmp_path, monkeypatch):
    shutil.copytree(finished, config.out)
    gone = chunks(Path(config.out))[1::3]
    for path in gone:
        path.unlink()
    seen = count_images(monkeypatch)
    assert_same_results(sweep(config), finished)
    assert len(seen) == len(set(seen)) == sum({"000000": 2, "000001": 1}[path.stem] for path in gone)


def test_a_finished_sweep_computes_no_image_again(config, finished, monkeypatch):
    shutil.copytree(finished, config.out)
    seen = count_images(monkeypatch)
    assert_same_results(sweep(config), finished)
    assert not seen


@pytest.mark.parametrize("change", ["protocol", "limit", "head", "size"])
def test_other_settings_in_the_same_folder_are_refused_before_any_work(
    config, finished, shelf, tmp_path, monkeypatch, change
):
    shutil.copytree(finished, config.out)
    chunks(Path(config.out))[0].unlink()
    if change == "protocol":
        config = replace(config, protocol=ProtocolConfig(clicks=3))
    elif change == "limit":
        config = replace(config, limit=2)
    elif change == "size":
        spec = yaml.safe_load((shelf / "backbone.yaml").read_text()) | {"image_size": 96}
        (tmp_path / "other.yaml").write_text(yaml.safe_dump(spec))
        config = replace(
            config, models=[ModelConfig("vanilla", backbone=str(tmp_path / "other.yaml")), config.models[1]]
        )
    else:  # the same weights, another formula of the variance
        shutil.copytree(shelf / "head", tmp_path / "short")
        content = json.loads((tmp_path / "short" / "config.json").read_text())
        content["head"]["variance"] = "short"
        (tmp_path / "short" / "config.json").write_text(json.dumps(content))
        config = replace(config, models=[config.models[0], ModelConfig("ruac", export=str(tmp_path / "short"))])
    seen = count_images(monkeypatch)
    with pytest.raises(RuacError, match=r"chunks.*made with another protocol, model or data"):
        sweep(config)
    assert not seen


@pytest.mark.parametrize("damage", ["truncated", "empty", "array"])
def test_a_broken_chunk_is_named(config, finished, damage):
    shutil.copytree(finished, config.out)
    path = chunks(Path(config.out))[1]
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "empty":
        path.write_bytes(b"")
    else:  # a flipped byte inside
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(bytes(content))
    with pytest.raises(RuacError, match=r"first/000001\.npz: unreadable chunk.*delete it"):
        sweep(config)


def test_replayed_clicks_are_the_stored_ones_and_give_the_same_rows(config, finished, tmp_path):
    replayed = replace(
        config, replay=f"{finished}:vanilla", protocol=ProtocolConfig(clicks=2, next_click="replay"), panels=0
    )
    assert_same_results(sweep(replayed), finished)
    fewer = replace(
        replayed, out=str(tmp_path / "fewer"), protocol=ProtocolConfig(clicks=1, next_click="replay"), limit=2
    )
    ours = pd.read_parquet(sweep(fewer) / "objects.parquet")
    theirs = pd.read_parquet(finished / "objects.parquet")
    for row in ours.itertuples():
        same = theirs[(theirs.domain == row.domain) & (theirs.image == row.image) & (theirs.object == row.object)]
        assert row.points.tolist() == same.points.iloc[0][:2].tolist()


@pytest.mark.parametrize(
    ("spec", "fields", "complaint"),
    [
        ("{finished}:nobody", {}, "no model 'nobody'"),
        ("{finished}/nowhere:vanilla", {}, "FOLDER:MODEL of a finished sweep"),
        ("{finished}:vanilla", {"clicks": 3}, "has 2 clicks, fewer than protocol.clicks=3"),
        ("{finished}:vanilla", {"box": True}, "protocol.box=False"),
    ],
)
def test_clicks_that_cannot_be_replayed(config, finished, spec, fields, complaint):
    protocol = ProtocolConfig(**({"clicks": 2, "next_click": "replay"} | fields))
    with pytest.raises(RuacError, match=complaint):
        sweep(replace(config, replay=spec.format(finished=finished), protocol=protocol))


def test_replay_needs_the_clicks_of_every_object(config, finished):
    protocol = ProtocolConfig(clicks=2, next_click="replay")
    with pytest.raises(RuacError, match=r"no clicks for first/"):  # the stored sweep has three images
        sweep(replace(config, replay=f"{finished}:vanilla", protocol=protocol, limit=4))


def test_vanilla_is_added_where_no_model_is(config, tmp_path):
    out = sweep(replace(config, models=config.models[1:], limit=1, out=str(tmp_path / "alone")))
    manifest = json.loads((out / "manifest.json").read_text())
    assert [m["name"] for m in manifest["models"]] == ["vanilla", "ruac"]


def test_equal_backbones_become_one(config):
    models = load_models(config, torch.device("cpu"))
    assert models["vanilla"].backbone is models["ruac"].backbone


def test_a_folder_of_domains_stands_for_all_of_them(config, shelf):
    assert list(open_domains(config)) == ["first", "second"]
    one = replace(config, domains=[str(shelf / "domains" / "second"), str(shelf / "domains" / "first")])
    assert list(open_domains(one)) == ["second", "first"]
    with pytest.raises(RuacError, match="another domain is named 'first'"):
        open_domains(replace(config, domains=[str(shelf / "domains"), str(shelf / "domains" / "first")]))
    with pytest.raises(RuacError, match=r"nowhere: domain folder not found"):
        open_domains(replace(config, domains=["nowhere"]))


def test_a_bad_image_is_named_and_what_was_finished_stays(config, shelf, tmp_path):
    domains = tmp_path / "domains"
    shutil.copytree(shelf / "domains", domains)
    image = domains / "first" / "images" / "2.png"
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2])
    config = replace(config, domains=[str(domains)])
    with pytest.raises(RuacError, match=r"2\.png"):
        sweep(config)
    kept = chunks(Path(config.out))
    assert [path.name for path in kept] == ["000000.npz"]
    image.write_bytes(whole)
    before = kept[0].stat().st_mtime_ns
    sweep(config)
    assert kept[0].stat().st_mtime_ns == before


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


@pytest.mark.dist
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not dist.is_available(), reason="needs torch.distributed")
def test_two_processes_give_the_numbers_of_one(config, shelf, tmp_path):
    shutil.copytree(shelf / "domains" / "first", tmp_path / "domains" / "third")
    content = {
        "models": [{k: v for k, v in vars(model).items() if v} for model in config.models],
        "domains": [*config.domains, str(tmp_path / "domains")],
        "limit": 8,
        "cpu": True,
        "panels": 1,
        "protocol": {"clicks": 2},
    }
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(content))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    outs = []
    for name, launcher in (("one", []), ("two", ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"])):
        command = [sys.executable, *launcher, str(ROOT / "tools" / "sweep.py"), str(tmp_path / "sweep.yaml")]
        done = subprocess.run(
            [*command, f"out={tmp_path / name}"], env=environment, capture_output=True, text=True, timeout=400
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("results: ") == 1
        outs.append(tmp_path / name)
    assert_same_results(*outs)
    assert len(chunks(outs[1])) == 3
