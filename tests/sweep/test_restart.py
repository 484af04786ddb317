"""A sweep that is interrupted, repeated or shared among processes: the same numbers, and nothing done twice."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch.distributed as dist
import yaml

from ruac.data.open import open_dataset
from ruac.errors import RuacError
from ruac.sweep import runner
from ruac.sweep.protocol import ProtocolConfig
from ruac.sweep.runner import ModelConfig

ROOT = Path(__file__).parents[2]


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


@pytest.mark.parametrize(("killed_at", "kept"), [(0, 0), (1, 0), (4, 3)])
def test_a_killed_sweep_continues(config, finished, shelf, killed_at, kept, sweep, assert_same_results):
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
    ids = [record.id for record in open_dataset(shelf / "domains" / "first").records[: config.limit]]
    # Nothing twice but the images of the chunk that was cut off.
    assert first[:kept] + second == [(domain, image) for domain in ("first", "second") for image in ids]


def test_only_missing_chunks_are_done_again(config, finished, tmp_path, monkeypatch, sweep, assert_same_results):
    shutil.copytree(finished, config.out)
    gone = chunks(Path(config.out))[1::3]
    for path in gone:
        path.unlink()
    seen = count_images(monkeypatch)
    assert_same_results(sweep(config), finished)
    assert len(seen) == len(set(seen)) == sum({"000000": 2, "000001": 1}[path.stem] for path in gone)


def test_a_finished_sweep_computes_no_image_again(config, finished, monkeypatch, sweep, assert_same_results):
    shutil.copytree(finished, config.out)
    seen = count_images(monkeypatch)
    assert_same_results(sweep(config), finished)
    assert not seen


@pytest.mark.parametrize("change", ["protocol", "limit", "head", "size", "data"])
def test_other_settings_in_the_same_folder_are_refused_before_any_work(
    config, finished, shelf, tmp_path, monkeypatch, change, sweep
):
    shutil.copytree(finished, config.out)
    chunks(Path(config.out))[0].unlink()
    if change == "protocol":
        config = replace(config, protocol=ProtocolConfig(clicks=3))
    elif change == "limit":
        config = replace(config, limit=2)
    elif change == "data":  # one annotation of the same objects and images
        shutil.copytree(shelf / "domains", tmp_path / "domains")
        path = tmp_path / "domains" / "second" / "annotations.json"
        content = json.loads(path.read_text())
        content["annotations"][0]["segmentation"] = content["annotations"][1]["segmentation"]
        path.write_text(json.dumps(content))
        config = replace(config, domains=[str(tmp_path / "domains")])
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
def test_a_broken_chunk_is_named(config, finished, damage, sweep):
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


def test_a_bad_image_is_named_and_what_was_finished_stays(config, shelf, tmp_path, sweep):
    domains = tmp_path / "domains"
    shutil.copytree(shelf / "domains", domains)
    image = domains / "first" / "images" / "2.png"
    whole = image.read_bytes()
    image.write_bytes(bytes(len(whole)))  # of the same size: another size would be other data
    config = replace(config, domains=[str(domains)])
    with pytest.raises(RuacError, match=r"2\.png"):
        sweep(config)
    kept = chunks(Path(config.out))
    assert [path.name for path in kept] == ["000000.npz"]
    image.write_bytes(whole)
    before = kept[0].stat().st_mtime_ns
    sweep(config)
    assert kept[0].stat().st_mtime_ns == before


@pytest.mark.dist
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not dist.is_available(), reason="needs torch.distributed")
def test_two_processes_give_the_numbers_of_one(config, shelf, tmp_path, assert_same_results):
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
