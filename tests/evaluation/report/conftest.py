"""What tests of the report share: a plausible sweep on disk, and its page as a browser would see it."""

import json
import shutil
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import distance_transform_edt, gaussian_filter

from ruac.evaluation.metrics import ReliabilitySums
from ruac.evaluation.metrics.certainty import rss
from ruac.evaluation.metrics.masks import boundary_f, jaccard
from ruac.evaluation.metrics.region import object_band
from ruac.evaluation.report import build_report

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


@pytest.fixture(scope="session")
def odd():
    """The name of a domain that has to be escaped."""
    return ODD


@pytest.fixture(scope="session")
def make_results():
    """``make_results(folder, domains=...)`` writes a sweep and returns its folder."""
    return write_results


@pytest.fixture(scope="session")
def read_page():
    """``read_page(folder)`` builds the report of a sweep and parses it."""
    return lambda folder: Page(build_report(folder).read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    return write_results(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="session")
def text(results):
    return build_report(results).read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def page(text):
    return Page(text)


@pytest.fixture
def copy(results, tmp_path):
    return shutil.copytree(results, tmp_path / "copy")


@pytest.fixture
def edit(copy, read_page):
    """``edit(change)`` changes the table of the copy and returns its new page."""

    def changed(change):
        table = pd.read_csv(copy / "domains.csv")
        change(table).to_csv(copy / "domains.csv", index=False)
        return read_page(copy)

    return changed


def write_results(
    folder, *, domains=("camvid", ODD, "leaves"), size=(40, 52), objects=3, models=("vanilla", "ruac"), corruptions=()
):
    """A plausible sweep: ellipses on smooth noise, logits that are wrong where noise bends the outline.

    corruptions: (name, severity, level) under which each domain is swept as well.
    """
    rng = np.random.default_rng(0)
    rows, table, index = [], [], []
    (folder / "sums").mkdir(parents=True)
    corrupted = {
        f"{domain}+{name}{severity}": {"of": domain, "name": name, "severity": severity, "level": level}
        for domain in domains
        for name, severity, level in corruptions
    }
    domains = [*domains, *corrupted]
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
                entropy = -(p * np.log2(p.clip(1e-9)) + (1 - p) * np.log2((1 - p).clip(1e-9)))
                band = object_band(truth[None])[0]
                doubt = (mask != truth)[band].mean(), entropy[band].mean()
                rows.append((domain, f"im{k}", f"ob{k}", model, j, f, predicted_iou, int(truth.sum()), 3, *doubt))
                for score in SCORES[model]:
                    u = np.where(mask, 1 - predicted_iou, 0.0) if score == "iou" else entropy
                    for region in ("image", "band"):
                        where = band if region == "band" else np.ones_like(truth)
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
            values["rss"] = rss(
                miou=j, ece=values["ece"], **{k: values[f"{k}_image"] for k in ("p_acc_cert", "p_unc_inacc")}
            )
            head = {"domain": domain, "model": model, "score": score, "region": region}
            table.append(head | {"images": objects, "objects": objects, "j": j, "f": f, "jf": (j + f) / 2} | values)
            name = f"{model}.{score}.{region}.{domain}.npz"
            np.savez_compressed(folder / "sums" / name, **kept.to_arrays())
    columns = ["domain", "image", "object", "model", "j", "f", "predicted_iou", "area", "clicks"]
    columns += ["band_error", "band_uncertainty"]
    pd.DataFrame(rows, columns=columns).to_parquet(folder / "objects.parquet")
    frame = pd.DataFrame(table)
    if corrupted:
        frame.insert(1, "reference", frame.domain.isin(list(corrupted)))
    frame.to_csv(folder / "domains.csv", index=False)
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
            | ({"corruption": corrupted[d]} if d in corrupted else {})
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
