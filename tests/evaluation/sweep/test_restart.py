"""A sweep that is interrupted, repeated or shared among processes: the same numbers, and nothing done twice."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch.distributed as dist
import yaml
from PIL import Image

from ruac.base.errors import RuacError
from ruac.base.files import held
from ruac.data.identity import image_names
from ruac.data.open import open_dataset
from ruac.evaluation.protocol import ProtocolConfig
from ruac.evaluation.report import build_report
from ruac.evaluation.results.load import load_results
from ruac.evaluation.sweep import chunks as chunks_module
from ruac.evaluation.sweep import runner
from ruac.evaluation.sweep.claims import cost, jobs_left
from ruac.evaluation.sweep.config import ModelConfig, SweepConfig
from ruac.evaluation.sweep.opened import Sweep
from ruac.evaluation.sweep.results import unreadable

ROOT = Path(__file__).parents[3]


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


def every_image(shelf, limit=3):
    ids = [record.id for record in open_dataset(shelf / "domains" / "first").records[:limit]]
    return sorted((domain, image) for domain in ("first", "second") for image in ids)


@pytest.mark.parametrize("killed_at", [0, 1, 4])
def test_a_killed_sweep_continues(config, finished, shelf, killed_at, sweep, assert_same_results):
    with pytest.MonkeyPatch.context() as patch:
        first = count_images(patch, fail_at=killed_at)
        with pytest.raises(KeyboardInterrupt):
            sweep(config)
    assert len(first) == killed_at
    assert not (Path(config.out) / "manifest.json").exists()
    with pytest.MonkeyPatch.context() as patch:
        second = count_images(patch)
        assert_same_results(sweep(config), finished)
    assert sorted(first + second) == every_image(shelf)  # nothing twice


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_image_at_hand_and_saves(config, shelf, monkeypatch, number, sweep):
    monkeypatch.setattr(chunks_module, "SAVE_SECONDS", 3600)
    with pytest.MonkeyPatch.context() as patch:
        first = count_images(patch)
        evaluate = runner.evaluate_image

        def signalled(*args, **kwargs):
            evaluate(*args, **kwargs)
            if len(first) == 2:
                os.kill(os.getpid(), number)

        patch.setattr(runner, "evaluate_image", signalled)
        before = signal.getsignal(number)
        with pytest.raises(KeyboardInterrupt):
            sweep(config)
        assert signal.getsignal(number) is before
    assert len(first) == 2
    second = count_images(monkeypatch)
    sweep(config)
    assert sorted(first + second) == every_image(shelf)


def test_only_what_no_chunk_holds_is_done_again(config, finished, monkeypatch, sweep, assert_same_results):
    shutil.copytree(finished, config.out)
    chunks(Path(config.out))[1].unlink()
    seen = count_images(monkeypatch)
    assert_same_results(sweep(config), finished)
    assert [domain for domain, _ in seen] == ["second"] * 3


def test_full_chunks_are_left_for_new_ones(config, finished, monkeypatch, sweep, assert_same_results):
    monkeypatch.setattr(chunks_module, "OBJECTS", 4)
    monkeypatch.setattr(chunks_module, "SAVE_SECONDS", 3600)
    assert_same_results(sweep(config), finished)
    found = chunks(Path(config.out))
    assert [path.parent.name for path in found] == ["first", "first", "second", "second"]  # of 2 + 3 and 2 objects


def test_a_finished_sweep_computes_no_image_again(config, finished, monkeypatch, sweep, assert_same_results):
    shutil.copytree(finished, config.out)
    seen = count_images(monkeypatch)
    assert_same_results(sweep(config), finished)
    assert not seen


def test_a_higher_limit_and_another_domain_keep_what_is_finished(config, finished, shelf, monkeypatch, sweep):
    shutil.copytree(finished, config.out)
    shutil.copytree(shelf / "domains" / "first", Path(config.out).parent / "third")
    seen = count_images(monkeypatch)
    sweep(replace(config, limit=4, domains=[*config.domains, str(Path(config.out).parent / "third")]))
    assert [domain for domain, _ in seen] == ["first", "second"] + ["third"] * 4


@pytest.mark.parametrize("change", ["protocol", "limit", "head", "size", "data"])
def test_other_settings_in_the_same_folder_are_refused_before_any_work(
    config, finished, shelf, tmp_path, monkeypatch, change, sweep
):
    shutil.copytree(finished, config.out)
    chunks(Path(config.out))[0].unlink()  # of the first domain
    complaint = "made with another protocol or model" if change in ("protocol", "head", "size") else "changed since"
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
    with pytest.raises(RuacError, match=rf"chunks.*{complaint}"):
        sweep(config)
    assert not seen


@pytest.mark.parametrize("older", ["arrays", "key", "names"])
def test_a_folder_of_an_older_version_is_not_continued_but_read(config, finished, sweep, older):
    """Chunks without a list of images, under another key, or with images named otherwise."""
    shutil.copytree(finished, config.out)
    path = chunks(Path(config.out))[0]
    with np.load(path) as arrays:
        content = dict(arrays)
    if older == "arrays":
        del content["images"]
    elif older == "key":
        content["key"] = np.array("0" * 64)
    else:
        content["images"] = np.array(json.dumps(["0" * 64] * len(json.loads(str(content["images"])))))
    np.savez(path, **content)
    before = load_results(Path(config.out))
    with pytest.raises(RuacError) as caught:
        sweep(config)
    for words in (str(path), "an older version", "use another out=", f"delete {path.parent}", "report, compare, table"):
        assert words in str(caught.value)
    assert load_results(Path(config.out)).values.equals(before.values)
    assert build_report(config.out).is_file()
    shutil.rmtree(path.parent)  # as it says
    assert load_results(sweep(config)).values.equals(before.values)


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
    with pytest.raises(RuacError, match=r"second/[0-9a-f]{16}\.npz: unreadable chunk.*delete it"):
        sweep(config)


def test_images_in_two_chunks_are_refused(config, finished, sweep):
    shutil.copytree(finished, config.out)
    path = chunks(Path(config.out))[0]
    shutil.copy(path, path.with_name("other.npz"))
    with pytest.raises(RuacError, match=r"holds an image that is also in \w+\.npz"):
        sweep(config)


@pytest.mark.parametrize("damage", ["zeros", "truncated", "missing"])
def test_a_bad_image_is_reported_and_only_it_is_tried_again(
    config, finished, shelf, tmp_path, monkeypatch, damage, sweep, assert_same_results
):
    shutil.copytree(shelf / "domains", tmp_path / "domains")
    config = replace(config, domains=[str(tmp_path / "domains")])
    image = tmp_path / "domains" / "first" / "images" / "2.png"
    whole = image.read_bytes()
    image.unlink()
    if damage != "missing":
        image.write_bytes(bytes(len(whole)) if damage == "zeros" else whole[:-200])
    out = sweep(config)
    manifest = json.loads((out / "manifest.json").read_text())
    assert [(f["domain"], f["image"], f["path"]) for f in manifest["failed"]] == [("first", "2.png", str(image))]
    assert str(image) in manifest["failed"][0]["error"]
    heading, line = unreadable(out)
    assert heading == f"{out}: 1 images could not be read:"
    assert line.startswith(f"{image}: ")
    table = pd.read_csv(out / "domains.csv").drop_duplicates("domain").set_index("domain")
    assert table.failed.to_dict() == {"first": 1, "second": 0}
    assert table.images.to_dict() == {"first": 2, "second": 3}
    assert [d["failed"] for d in manifest["domains"]] == [1, 0]
    image.write_bytes(whole)
    seen = count_images(monkeypatch)
    assert_same_results(sweep(config), finished)
    assert seen == [("first", "2.png")]
    assert not unreadable(out)


def test_domains_without_a_readable_image(config, shelf, tmp_path, sweep):
    shutil.copytree(shelf / "domains", tmp_path / "domains")
    config = replace(config, domains=[str(tmp_path / "domains")])
    shutil.rmtree(tmp_path / "domains" / "first" / "images")
    (tmp_path / "domains" / "first" / "images").mkdir()
    out = sweep(config)
    manifest = json.loads((out / "manifest.json").read_text())
    assert [(d["images"], d["failed"]) for d in manifest["domains"]] == [(0, 3), (3, 0)]
    assert "second" in build_report(out).read_text()
    for image in (tmp_path / "domains" / "second" / "images").iterdir():
        image.write_bytes(b"")
    with pytest.raises(RuacError, match=r"none of 6 images could be read; the first: .*first.images.*not found"):
        sweep(replace(config, out=str(tmp_path / "none")))


def test_images_added_to_a_data_set_leave_its_finished_ones(config, shelf, tmp_path, monkeypatch, sweep):
    """Although all later images change their place."""
    places = [tmp_path / "domains" / "first" / kind for kind in ("images", "masks")]
    for place in places:
        place.mkdir(parents=True)
    pictures = sorted((shelf / "domains" / "first" / "images").iterdir())
    mask = np.zeros((48, 64), np.uint8)
    mask[10:30, 10:40] = 255
    seen = count_images(monkeypatch)
    for added in (pictures[2:4], pictures[:2]):
        for picture in added:
            shutil.copy(picture, places[0])
            Image.fromarray(mask).save(places[1] / picture.name)
        out = sweep(replace(config, domains=[str(tmp_path / "domains" / "first")], limit=0))
    assert len(seen) == len(set(seen)) == 4
    objects = pd.read_parquet(out / "objects.parquet")
    assert list(objects.image.unique()) == sorted(objects.image.unique())


def test_a_second_sweep_into_the_same_folder_is_refused(config, monkeypatch, sweep):
    seen = count_images(monkeypatch)
    with held(Path(config.out)), pytest.raises(RuacError, match="out: another run is at work here"):
        sweep(config)
    assert not seen


def test_costly_images_come_first(shelf, tmp_path):
    dataset = open_dataset(shelf / "domains" / "first")
    names = {name: image_names(dataset) for name in "ab"}
    asked = SweepConfig(out=str(tmp_path))
    jobs = jobs_left(Sweep(asked, {}, {"a": dataset, "b": dataset}, [], key="", clicks=None, names=names))
    assert [job.domain for job in jobs] == ["a"] * 8 + ["b"] * 8
    for own in (jobs[:8], jobs[8:]):
        costs = [cost(dataset.records[job.position]) for job in own]
        assert costs == [48 * 64 * n for n in (3, 3, 3, 3, 2, 2, 2, 2)]
        assert sorted(job.position for job in own) == list(range(8))


@pytest.mark.dist
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not dist.is_available(), reason="needs torch.distributed")
def test_two_processes_give_the_numbers_of_one(config, shelf, tmp_path, assert_same_results):
    shutil.copytree(shelf / "domains" / "first", tmp_path / "domains" / "third")
    (tmp_path / "domains" / "third" / "images" / "5.png").write_bytes(b"broken")
    content = {
        "models": [{k: v for k, v in vars(model).items() if v} for model in config.models],
        "domains": [*config.domains, str(tmp_path / "domains")],
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
        assert done.returncode == 1, done.stderr[-3000:]
        assert done.stdout.count("results: ") == 1
        assert "1 images could not be read" in done.stderr
        assert done.stderr.count("5.png: cannot be read") == 1
        outs.append(tmp_path / name)
    assert_same_results(*outs)
    assert (outs[0] / "table.tex").read_bytes() == (outs[1] / "table.tex").read_bytes()
    assert len(chunks(outs[0])) == 3
    assert len(chunks(outs[1])) > 3  # both had a share of at least one domain


def test_an_edited_picture_is_swept_again(config, finished, shelf, tmp_path, monkeypatch, sweep, assert_same_results):
    """The same command after an edit gives what a fresh folder would, however large the file is."""
    shutil.copytree(shelf / "domains", tmp_path / "domains")
    config = replace(config, domains=[str(tmp_path / "domains")])
    path = tmp_path / "domains" / "second" / "images" / "1.png"
    picture = np.asarray(Image.open(path))
    Image.fromarray(picture).save(path, "BMP")
    sweep(config)
    size = path.stat().st_size
    Image.fromarray(255 - picture).save(path, "BMP")
    assert path.stat().st_size == size
    seen = count_images(monkeypatch)
    again = sweep(config)
    assert {domain for domain, _ in seen} == {"second"}
    assert_same_results(again, sweep(replace(config, out=str(tmp_path / "fresh"))))
