"""The sample of a large set, the check, the conversion, the page of cards, the script."""

import json
import random
import runpy
from collections import Counter
from pathlib import Path

import pytest
from native_trees import TREES
from PIL import Image

from ruac.base.errors import RuacError, run_tool
from ruac.data.coco import CocoFolder
from ruac.data.domains import open_domain
from ruac.data.domains.markdown import cards_page
from ruac.data.domains.prepare import convert, describe, save_panels
from ruac.data.domains.subsample import draw

ROOT = Path(__file__).parents[3]
MASKS = {f"picture{n}": n % 7 for n in range(400)}  # 0 to 6 masks each, 1,197 in all


def sample(ids, **options):
    asked = []

    def count(order):
        for index in order:
            asked.append(ids[index])
            yield MASKS[ids[index]]

    chosen, sampled = draw(ids, count, **options)
    assert chosen == sorted(chosen)
    return {ids[index] for index in chosen}, sampled, asked


def test_a_small_set_is_used_whole():
    assert sample(list(MASKS), most=1197, about=500)[:2] == (set(MASKS), False)


def test_a_large_set_is_sampled_and_no_more_is_looked_at_than_needed():
    chosen, sampled, asked = sample(list(MASKS), most=900, about=500)
    total, seen = sum(MASKS[key] for key in chosen), sum(MASKS[key] for key in asked)
    assert sampled
    assert 500 <= total <= 506
    assert 900 < seen <= 907
    assert len(asked) == len(set(asked)) < len(MASKS)


def test_the_sample_depends_on_ids_and_seed_only():
    first = sample(list(MASKS), most=900, about=500)[0]
    shuffled = list(MASKS)
    random.Random(3).shuffle(shuffled)
    assert sample(shuffled, most=900, about=500)[0] == first
    other = sample(list(MASKS), most=900, about=500, seed=1)[0]
    assert other != first
    # a picture more in the download moves the end of the sample, not the draw
    MASKS["new"] = 1
    assert len(sample([*MASKS], most=900, about=500)[0] ^ first) <= 3
    del MASKS["new"]


def test_every_picture_is_equally_likely():
    hits = Counter(key for seed in range(300) for key in sample(list(MASKS), most=900, about=500, seed=seed)[0])
    share = [hits[key] / 300 for key in MASKS]
    assert abs(sum(share) / len(share) - 500 / 1197) < 0.02
    assert min(share) > 0.27  # 5 standard errors
    assert max(share) < 0.57


def test_a_sampled_domain_says_so(tmp_path):
    TREES["ishape"](tmp_path)  # six pictures of two objects
    dataset = open_domain("ishape", tmp_path, most=7, about=4)
    assert dataset.found.sampled
    assert sum(len(record.object_ids) for record in dataset.records) == 4
    again = open_domain("ishape", tmp_path, most=7, about=4)
    assert [record.id for record in again.records] == [record.id for record in dataset.records]
    seeds = {tuple(r.id for r in open_domain("ishape", tmp_path, most=7, about=4, seed=s).records) for s in range(9)}
    assert len(seeds) > 3
    assert "a random sample" in describe(dataset)
    convert(dataset, tmp_path / "out")
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["images"] == [record.id for record in dataset.records]
    assert (manifest["domain"], manifest["seed"], manifest["found"]["sampled"]) == ("ishape", 0, True)


def test_the_check_reports_what_was_left_out_and_the_papers_counts(tmp_path):
    TREES["trashcan"](tmp_path)
    text = describe(open_domain("trashcan", tmp_path))
    assert "found: 3 images; looked into 3: 4 objects, 1 images without an object, 1 objects without a pixel" in text
    assert "used: 2 images, 4 objects, all of them" in text
    assert "SAM paper: 5936 images, 9540 objects: -100.0% images, -100.0% objects" in text


def test_panels_show_pictures_with_their_masks(tmp_path):
    TREES["doors"](tmp_path)
    save_panels(open_domain("doors", tmp_path), tmp_path / "p.png")
    with Image.open(tmp_path / "p.png") as sheet:
        assert sheet.size == (320, 320)
        assert sheet.getpixel((15, 10)) != sheet.getpixel((319, 319)) == (255, 255, 255)


def test_a_broken_file_leaves_no_half_conversion(tmp_path):
    TREES["trashcan"](tmp_path)
    dataset = open_domain("trashcan", tmp_path)
    dataset.records[1].path.write_bytes(b"no image")
    with pytest.raises(RuacError, match="cannot be read as an image"):
        convert(dataset, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def tool(*arguments):
    main = runpy.run_path(str(ROOT / "tools" / "prepare_domain.py"))["main"]
    run_tool(main, [str(argument) for argument in arguments])


def test_the_script_checks_draws_and_converts(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    TREES["ovis"](tmp_path / "data")
    tool("ovis", tmp_path / "data", "--protocol", "sam1", "--convert", "--out", tmp_path / "out")
    said = capsys.readouterr().out
    assert "used: 2 images, 3 objects" in said
    assert (tmp_path / "out/ovis.png").is_file()
    assert len(CocoFolder(tmp_path / "out/ovis")) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["ovis"], "expected NAME and ROOT"), (["oviz", "."], "'oviz': unknown"), (["ovis", "."], "not found")],
)
def test_the_script_ends_with_status_2_on_what_users_get_wrong(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        tool(*arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_page_of_cards_is_the_one_in_docs():
    page = (ROOT / "docs" / "domains.md").read_text(encoding="utf-8")
    assert page == cards_page(), "run: ruac prepare-domain --cards > docs/domains.md"
