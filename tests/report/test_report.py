import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import distance_transform_edt, gaussian_filter

from ruac.errors import RuacError
from ruac.metrics import ReliabilitySums
from ruac.metrics.curves import rss
from ruac.metrics.region import object_band
from ruac.metrics.segmentation import boundary_f, jaccard
from ruac.report import build, build_report
from ruac.report.build import marks
from ruac.report.columns import COLUMNS, Column
from ruac.report.load import load_results
from ruac.report.panels import close_up, error_picture, load_panels
from ruac.report.statements import statements

ODD = "od<d>&\"name'"
SCORES = {"vanilla": ("entropy", "iou"), "ruac": ("total",), "noise": ("total",)}
# Sharpness of the logits and quality of the masks: vanilla claims too much, ruac is about right, noise in between.
LOOKS = {"vanilla": (2.6, 1.0), "ruac": (0.9, 0.9), "noise": (1.5, 1.05)}


class Page(HTMLParser):
    """What a browser would see: tags with attributes, texts, the two tables over domains."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.tables, self.cell, self.skip = [], {}, None, False
        self.rows, self.texts = None, []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        self.skip = tag in ("style", "script")
        if tag == "table":
            self.rows = self.tables.setdefault(attributes.get("data-region"), [])
        elif tag == "tr" and self.rows is not None:
            self.rows.append([])
        elif tag in ("td", "th") and self.rows is not None:
            self.cell = {
                "text": "",
                "class": attributes.get("class", "").split(),
                "value": attributes.get("data-value"),
            }
            self.rows[-1].append(self.cell)

    def handle_endtag(self, tag):
        self.skip = False
        if tag in ("td", "th"):
            self.cell = None

    def handle_data(self, data):
        if not self.skip:
            self.texts.append(data)
        if self.cell is not None:
            self.cell["text"] += data

    def ids(self):
        return [a["id"] for _, a in self.tags if "id" in a]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return make_results(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def text(results):
    return build_report(results).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


@pytest.fixture
def copy(results, tmp_path):
    return shutil.copytree(results, tmp_path / "copy")


def edit(copy, change):
    table = pd.read_csv(copy / "domains.csv")
    change(table).to_csv(copy / "domains.csv", index=False)
    return Page(build_report(copy).read_text(encoding="utf-8"))


def columns_of(page, region):
    """(metric label, entry label) of every value column of a table over domains."""
    groups, names = page.tables[region][:2]
    return groups[3:], [cell["text"].strip() for cell in names]


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
    source = (Path(build.__file__).parent / "templates" / "report.html.j2").read_text(encoding="utf-8")
    assert set(COLUMNS) <= set(re.findall(r'^  "([\w.]+)": "', source, re.M))


@pytest.mark.parametrize("region", ["image", "band"])
def test_table_holds_every_value_and_the_unweighted_mean(results, page, region):
    loaded = load_results(results)
    rows = page.tables[region]
    body, mean = rows[2:-1], rows[-1]
    assert [row[0]["text"] for row in body] == loaded.domains
    position = 3
    for column in loaded.columns:
        for entry in loaded.entries_of(column):
            expected = loaded.series(column, entry, region)
            shown = [float(row[position]["value"]) for row in body]
            np.testing.assert_allclose(shown, expected)
            assert float(mean[position]["value"]) == pytest.approx(expected.mean())
            assert body[0][position]["text"] == f"{column.scale * expected[0]:.{column.digits}f}"
            position += 1
    assert all(len(row) == position for row in [*body, mean])


def test_metrics_of_the_probability_have_one_column_per_model(results):
    loaded = load_results(results)
    assert [e.label for e in loaded.entries_of(COLUMNS["ece"])] == ["vanilla", "ruac"]
    assert [e.label for e in loaded.entries_of(COLUMNS["auroc"])] == [
        "vanilla, entropy",
        "vanilla, 1 - predicted IoU",
        "ruac",
    ]


HIGH, LOW = Column("a", "a", True, digits=2), Column("a", "a", False, digits=2)


@pytest.mark.parametrize(
    ("values", "column", "expected"),
    [
        ([0.1, 0.3, 0.2], HIGH, ["", "best", "second"]),
        ([0.1, 0.3, 0.2], LOW, ["best", "", "second"]),
        ([0.301, 0.3, 0.2], HIGH, ["best", "best", ""]),  # equal as shown, and two values rank no second
        ([0.3, 0.2, 0.2, 0.1], HIGH, ["best", "second", "second", ""]),
        ([np.nan, 0.2, 0.1], LOW, ["", "", "best"]),
        ([0.2, 0.2], LOW, ["", ""]),
        ([0.2], LOW, [""]),
        ([0.1, 0.3], Column("a", "a"), ["", ""]),
    ],
)
def test_marks(values, column, expected):
    assert marks(np.array(values), column) == expected


def test_marks_reach_the_page(results, page):
    loaded = load_results(results)
    position = 3
    for column in loaded.columns:
        count = len(loaded.entries_of(column))
        for row in page.tables["band"][2:]:
            cells = row[position : position + count]
            expected = marks([float(cell["value"]) for cell in cells], column)
            assert [next((m for m in ("best", "second") if m in cell["class"]), "") for cell in cells] == expected
        position += count


def test_nan_is_a_dash_and_a_partial_mean_is_not_ranked(copy):
    def change(table):
        table.loc[(table.domain == "camvid") & (table.model == "ruac"), "ece"] = np.nan
        return table

    page = edit(copy, change)
    loaded = load_results(copy)
    position = 3 + sum(len(loaded.entries_of(c)) for c in loaded.columns[: loaded.columns.index(COLUMNS["ece"])]) + 1
    camvid, mean = page.tables["image"][2][position], page.tables["image"][-1][position]
    assert (camvid["text"], camvid["value"]) == ("\u2013", "")
    others = loaded.series(COLUMNS["ece"], loaded.entries[-1], "image")[1:]
    assert float(mean["value"]) == pytest.approx(others.mean())
    assert mean["text"].endswith("2")  # the number of domains behind it
    assert not {"best", "second"} & set(mean["class"])
    assert not any(re.search(r"\bnan\b", t) for t in page.texts)


def test_a_row_that_is_missing_is_a_dash(copy):
    page = edit(copy, lambda table: table[(table.domain != "leaves") | (table.model != "ruac")])
    assert "\u2013" in [cell["text"] for cell in page.tables["image"][4]]


def test_unknown_columns_are_shown_unranked_and_other_text_is_ignored(copy):
    page = edit(copy, lambda table: table.assign(surprise=np.arange(len(table)) / 7, remark="<i>text</i>"))
    assert "metric-surprise" in page.ids()
    assert "metric-remark" not in page.ids()
    assert any("has no words for" in t for t in page.texts)


def test_a_domain_may_be_called_na(tmp_path):
    page = Page(build_report(make_results(tmp_path / "r", domains=("NA", "nan"), objects=1)).read_text())
    assert [row[0]["text"] for row in page.tables["image"][2:-1]] == ["NA", "nan"]


def test_odd_names_are_escaped(copy):
    out = build_report(copy, copy / "new" / "out.html", title="<script>alert(1)</script>")
    assert out == copy / "new" / "out.html"
    text = out.read_text()
    assert "od<d>" not in text
    assert "<script>alert" not in text
    assert "odd <key>" not in text
    page = Page(text)
    assert ODD in [row[0]["text"] for row in page.tables["image"]]
    assert not [tag for tag, _ in page.tags if tag in ("d", "key", "value")]


def test_charts_and_pictures_are_there(page):
    labels = [a.get("aria-label", "") for tag, a in page.tags if tag == "svg"]
    for region in ("image", "band"):
        for domain in ("camvid", ODD, "leaves"):
            assert f"Reliability diagram, {domain}, {region}" in labels
            assert f"Risk against coverage, {domain}, {region}" in labels
    assert sum("predicted IoU against true IoU" in label for label in labels) == 2
    assert sum(tag == "img" for tag, _ in page.tags) == 9 * (2 + 3 * 2)
    assert all(a.get("alt") for tag, a in page.tags if tag == "img")


def compared(results, ours, theirs, model="ruac"):
    """Statements after ECE was set per domain to given values, the same in both regions."""
    loaded = load_results(results)
    values = {"ruac": ours, "vanilla": theirs}
    tables = []
    for domain in range(len(ours)):
        for (_, m, score, region), row in loaded.values.loc[["camvid"]].iterrows():
            head = {"domain": f"d{domain}", "model": m, "score": score, "region": region}
            tables.append(head | dict(row) | {"ece": values[m][domain]})
    frame = pd.DataFrame(tables).set_index(["domain", "model", "score", "region"])
    found = statements(replace(loaded, values=frame))
    return next(s for s in found if s["key"] == "ece")


NOISE = np.array([0.0, 0.01, -0.01, 0.02, -0.02, 0.01, 0.0, 0.01])


@pytest.mark.parametrize(
    ("gain", "verdict", "slight"),
    [
        (np.full(8, 0.1) + NOISE, "better", False),
        (-np.full(8, 0.1) + NOISE, "worse", False),
        (np.full(8, 0.001) * (1 + NOISE), "better", True),
        (
            np.array([0.3, -0.01, -0.02, -0.01, -0.03, -0.01, -0.01, -0.02]),
            "unclear",
            False,
        ),  # one domain makes the mean
        (np.zeros(8), "unclear", True),
        (np.full(3, 0.1), "better", False),
        (np.array([0.1, 0.1, -0.01]), "unclear", False),
        (np.full(2, 0.1), "unclear", False),
    ],
)
def test_verdicts_claim_no_more_than_the_domains_show(results, gain, verdict, slight):
    theirs = np.full(len(gain), 0.4)
    found = compared(results, theirs - gain, theirs)
    assert found["verdict"] == verdict
    assert found["slight"] == slight
    assert found["sides"][0]["wins"] == (gain > 0).sum()


def test_a_worse_model_is_called_worse_on_the_page(copy):
    def change(table):
        table.loc[table.model == "ruac", "ece"] = 0.4
        table.loc[table.model == "vanilla", "ece"] = 0.2
        return table

    text = " ".join(" ".join(edit(copy, change).texts).split())
    assert "worse calibrated than vanilla" in text
    assert "100 % higher on the whole image" in text
    assert "Calibration: ruac is worse than vanilla." in text


def test_the_best_score_represents_the_baseline(results):
    loaded = load_results(results)
    by_score = [loaded.series(COLUMNS["auroc"], e, "band").mean() for e in loaded.entries if e.model == "vanilla"]
    side = next(s for s in statements(loaded) if s["key"] == "auroc")["sides"][1]
    assert side["theirs"] == f"{max(by_score):.3f}"


def test_panels_stay_below_their_budget(results):
    folder = results / "panels"
    every, count = load_panels(folder, ["vanilla", "ruac"])
    assert len(every) == count == 9
    size = sum(panel.size for panel in every)
    smaller, _ = load_panels(folder, ["vanilla", "ruac"], budget=int(0.9 * size))
    assert len(smaller) == 9
    few, count = load_panels(folder, ["vanilla", "ruac"], budget=size // 8)
    assert 0 < len(few) < count
    assert sum(panel.size for panel in few) <= size // 8


def test_close_up_holds_truth_and_clicks_and_is_not_blown_up_by_a_stray_answer():
    truth, stray = np.zeros((2, 400, 600), bool)
    truth[100:140, 200:260] = True
    stray[:, :] = True
    x0, y0, x1, y1 = close_up(truth, [truth, stray], np.array([[320.0, 120.0]]))
    assert x0 <= 200
    assert x1 > 320
    assert y0 <= 100
    assert y1 >= 140
    assert x1 - x0 == y1 - y0 <= 240
    assert close_up(truth * False, [truth * False], np.zeros((0, 2))) == (0, 0, 600, 400)


def test_error_picture_colors_what_is_missed_and_what_is_too_much():
    truth, mask = np.zeros((2, 4, 4), bool)
    truth[:, :2], mask[:2] = True, True
    picture = error_picture(np.full((4, 4, 3), 100, np.uint8), mask, truth).astype(int)
    missed, excess, right = picture[3, 0], picture[0, 3], picture[0, 0]
    assert missed[2] > missed[0]  # violet
    assert excess[0] > excess[2]  # orange
    assert len(set(right)) == 1


def test_a_sweep_without_pictures_is_reported(copy):
    (copy / "panels" / "index.json").write_text("[]")
    assert "kept no pictures" in build_report(copy).read_text()


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


def make_results(folder, *, domains=("camvid", ODD, "leaves"), size=(40, 52), objects=3, models=("vanilla", "ruac")):
    """A plausible sweep: ellipses on smooth noise, logits that are wrong where noise bends the outline."""
    rng = np.random.default_rng(0)
    rows, table, index = [], [], []
    (folder / "sums").mkdir(parents=True)
    for number, domain in enumerate(domains):
        sums, segmentation = {}, {m: [] for m in models}
        panel_folder = folder / "panels" / f"d{number}"
        panel_folder.mkdir(parents=True)
        for k in range(objects):
            image, truth, answers = make_object(rng, size, models, hard=1 + 0.25 * number)
            panel = {"image": image, "truth": truth, "points": clicks(truth), "labels": [1, 0]}
            for model, (logits, predicted_iou) in answers.items():
                mask, p = logits > 0, 1 / (1 + np.exp(-logits))
                j, f = jaccard(mask[None], truth[None])[0], boundary_f(mask[None], truth[None])[0]
                segmentation[model].append((j, f))
                rows.append((domain, f"im{k}", f"ob{k}", model, j, f, predicted_iou, int(truth.sum()), 3))
                entropy = -(p * np.log2(p.clip(1e-9)) + (1 - p) * np.log2((1 - p).clip(1e-9)))
                for score in SCORES[model]:
                    u = np.where(mask, 1 - predicted_iou, 0.0) if score == "iou" else entropy
                    for region in ("image", "band"):
                        where = object_band(truth[None])[0] if region == "band" else np.ones_like(truth)
                        kept = sums.setdefault((model, score, region), ReliabilitySums())
                        values = {"probability": p, "uncertainty": u.clip(0, 1), "target": truth, "prediction": mask}
                        kept.update(**values, region=where)
                panel |= {f"mask.{model}": mask, f"j.{model}": j}
                panel[f"uncertainty.{model}"] = (255 * entropy.clip(0, 1)).astype(np.uint8)
            np.savez_compressed(panel_folder / f"{k}.npz", **panel)
            case = ("worst", "overconfident", "best")[k % 3]
            entry = {"domain": domain, "image": f"im{k}", "object": f"ob{k}", "case": case, "models": list(models)}
            index.append(entry | {"file": f"panels/d{number}/{k}.npz"})
        for (model, score, region), kept in sums.items():
            j, f = np.mean(segmentation[model], axis=0)
            values = kept.compute()
            values["rss"] = rss(miou=j, **{k: values[k] for k in ("ece", "p_acc_cert", "p_unc_inacc")})
            head = {"domain": domain, "model": model, "score": score, "region": region}
            table.append(head | {"images": objects, "objects": objects, "j": j, "f": f, "jf": (j + f) / 2} | values)
            name = f"{model}.{score}.{region}.{domain}.npz"
            np.savez_compressed(folder / "sums" / name, **kept.to_arrays())
    columns = ["domain", "image", "object", "model", "j", "f", "predicted_iou", "area", "clicks"]
    pd.DataFrame(rows, columns=columns).to_parquet(folder / "objects.parquet")
    pd.DataFrame(table).to_csv(folder / "domains.csv", index=False)
    (folder / "panels" / "index.json").write_text(json.dumps(index))
    manifest = {
        "protocol": {"first_click": "center", "clicks": 3, "next_click": "own_error", "mask_choice": "predicted_iou"}
        | {"box": False, "multimask": True, "feedback": True, "seed": 0, "odd <key>": "odd <value>"},
        "models": [
            {"name": m, "kind": "vanilla" if m == "vanilla" else "head", "checkpoint": f"{m}.pt", "sha256": "ab" * 32}
            for m in models
        ],
        "domains": [
            {"name": d, "path": f"data/{d}", "images": objects, "objects": objects, "sha256": "cd" * 32}
            for d in domains
        ],
        "environment": {"torch": "2.13.0", "git_commit": "0123456789abcdef0123456789abcdef01234567"},
        "created": "2026-11-21T10:00:00Z",
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def make_object(rng, size, models, hard=1.0):
    y, x = np.mgrid[: size[0], : size[1]]
    unit = min(size)
    cy, cx = rng.uniform(0.35, 0.65, 2) * size
    ry, rx = rng.uniform(0.15, 0.3, 2) * unit
    truth = ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1
    smooth = gaussian_filter(rng.normal(size=size), unit / 25)[..., None]
    smooth = smooth / smooth.std()
    image = (110 + 22 * smooth + np.where(truth[..., None], [55, 20, -35], [-15, 0, 25])).clip(0, 255).astype(np.uint8)
    distance = distance_transform_edt(truth) - distance_transform_edt(~truth)
    bend = gaussian_filter(rng.normal(size=size), unit / 14)
    bend *= hard * unit / 24 / bend.std()
    answers = {}
    for model in models:
        sharpness, quality = LOOKS[model]
        own = gaussian_filter(rng.normal(size=size), unit / 20)
        logits = sharpness * 22 / unit * (distance + quality * bend + unit / 60 * own / own.std())
        j = jaccard((logits > 0)[None], truth[None])[0]
        answers[model] = logits, float(np.clip(j + rng.normal(0.06, 0.07), 0.02, 0.99))
    return image, truth, answers


def clicks(mask):
    """One in the middle of the object, one just outside."""
    y, x = np.unravel_index(distance_transform_edt(mask).argmax(), mask.shape)
    outside = np.flatnonzero(~mask[y, x:])[0] + 2
    return np.array([[x, y], [x + outside, y]])
