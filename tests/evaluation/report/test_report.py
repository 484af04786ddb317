"""The page as a whole: self-contained, linked, escaped; and folders that are no sweep."""

import json
import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ruac.base.errors import RuacError
from ruac.evaluation.protocol import ProtocolConfig
from ruac.evaluation.report import build, build_report
from ruac.evaluation.report.panels import load_panels
from ruac.evaluation.results.load import load_results
from ruac.evaluation.results.names import COLUMNS, MASK_SCORES

WORDS = Path(build.__file__).parent / "templates" / "words.j2"


def test_nothing_is_asked_of_the_network(page, text):
    sources = [v for _, a in page.tags for k, v in a.items() if k in ("src", "href", "xlink:href", "srcset", "data")]
    assert sources
    assert all(s.startswith(("#", "data:image/jpeg;base64,")) for s in sources)
    assert not {tag for tag, _ in page.tags} & {"link", "iframe", "object", "embed", "base"}
    assert "http:" not in text
    assert "https:" not in text
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest", text)
    assert len(text) < 5_000_000


def test_ids_are_unique_and_every_link_has_its_target(page):
    ids = page.ids()
    assert len(ids) == len(set(ids))
    targets = [a["href"][1:] for tag, a in page.tags if tag == "a"]
    assert set(targets) <= set(ids)


def test_every_column_has_its_definition(results, page):
    columns = load_results(results).columns
    assert {c.key for c in columns} >= {"jf", "ece", "auroc", "prr", "rss", "pavpu_0.01", "pixels"}
    for column in columns:
        assert f"metric-{column.key}" in page.ids()
        assert ("a", {"href": f"#metric-{column.key}"}) in page.tags
    assert not any("has no words for" in t for t in page.texts)


def test_known_columns_all_have_prose():
    source = WORDS.read_text(encoding="utf-8")
    assert set(COLUMNS) <= set(re.findall(r'^  "([\w.]+)": "', source, re.M))
    assert {c.key for c in MASK_SCORES} <= set(re.findall(r'^  "(\w+)": \["', source, re.M))


def test_the_protocol_is_told_in_words():
    words = set(re.findall(r'^  "(\w+)": \["', WORDS.read_text(encoding="utf-8"), re.M))
    assert {f.name for f in fields(ProtocolConfig)} | {
        "replay",
        "limit",
        "native_splits",
        "native_seed",
        "orientation",
    } <= words


def test_images_that_could_not_be_read_are_named(copy, read_page):
    manifest = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))
    manifest["failed"] = [{"domain": "camvid", "image": "a", "path": "/data/<a>.png", "error": "truncated"}]
    (copy / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    texts = "".join(read_page(copy).texts)
    assert "1 image could not be read and is in no number" in texts
    assert "/data/<a>.png" in texts


def test_odd_names_are_escaped(copy, odd, page):
    out = build_report(copy, copy / "new" / "out.html", title="<script>alert(1)</script>")
    assert out == copy / "new" / "out.html"
    text = out.read_text()
    assert "od<d>" not in text
    assert "<script>alert" not in text
    assert "odd <key>" not in text
    page = type(page)(text)
    assert odd in [row[0]["text"] for row in page.tables["image"]]
    assert not [tag for tag, _ in page.tags if tag in ("d", "key", "value")]


def test_charts_and_pictures_are_there(page, odd):
    labels = [a.get("aria-label", "") for tag, a in page.tags if tag == "svg"]
    for region in ("image", "band"):
        for domain in ("camvid", odd, "leaves"):
            assert f"Reliability diagram, {domain}, {region}" in labels
            assert f"Risk against coverage, {domain}, {region}" in labels
    assert sum("predicted IoU against true IoU" in label for label in labels) == 2
    assert sum(tag == "img" for tag, _ in page.tags) == 9 * (2 + 3 * 2)
    assert all(a.get("alt") for tag, a in page.tags if tag == "img")


@pytest.mark.parametrize(
    "name",
    [
        "manifest.json",
        "domains.csv",
        "objects.parquet",
        "panels/index.json",
        "panels/d1/0.npz",
        "sums/ruac.total.band.leaves.npz",
    ],
)
def test_missing_and_broken_files_are_named(copy, name):
    for damage in (lambda path: path.write_bytes(b"\x00broken"), lambda path: path.unlink()):
        damage(copy / name)
        with pytest.raises(RuacError, match=re.escape(name)):
            build_report(copy)
    assert not (copy / "report.html").exists() or (copy / "report.html").stat().st_size


def test_missing_columns_keys_models_and_arrays_are_named(copy):
    table, objects = pd.read_csv(copy / "domains.csv"), pd.read_parquet(copy / "objects.parquet")
    manifest = json.loads((copy / "manifest.json").read_text())

    objects.drop(columns="predicted_iou").to_parquet(copy / "objects.parquet")
    with pytest.raises(RuacError, match=r"objects.parquet: missing column 'predicted_iou'"):
        build_report(copy)
    table.drop(columns="score").to_csv(copy / "domains.csv", index=False)
    with pytest.raises(RuacError, match=r"domains.csv: missing column 'score'"):
        build_report(copy)
    table[table.model == "ruac"].to_csv(copy / "domains.csv", index=False)
    with pytest.raises(RuacError, match=r"domains.csv: model 'vanilla' is missing"):
        build_report(copy)
    pd.concat([table, table]).to_csv(copy / "domains.csv", index=False)
    with pytest.raises(RuacError, match=r"domains.csv: more than one row"):
        build_report(copy)
    del manifest["protocol"]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RuacError, match=r"manifest.json: missing key 'protocol'"):
        build_report(copy)
    with np.load(copy / "panels/d0/0.npz") as archive:
        np.savez(copy / "panels/d0/0.npz", **{k: archive[k] for k in archive if k != "mask.ruac"})
    with pytest.raises(RuacError, match=r"0.npz: missing array 'mask.ruac'"):
        load_panels(copy / "panels", ["vanilla", "ruac"])
    with pytest.raises(RuacError, match="nowhere: results folder not found"):
        build_report(copy / "nowhere")
