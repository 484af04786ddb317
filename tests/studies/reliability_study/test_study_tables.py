"""The numbers of each figure against the sweeps they are of, read and computed directly."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ruac.backbone import load_backbone
from ruac.base.errors import RuacError
from ruac.data.open import open_dataset
from ruac.evaluation.metrics.certainty import rss
from ruac.evaluation.protocol import ProtocolConfig
from ruac.evaluation.score import answer_image
from ruac.inference.export import load_exported
from ruac.inference.model import UncertainSam
from ruac.studies.reliability_study import tables
from ruac.studies.reliability_study.plan import Plan
from ruac.studies.reliability_study.records import read_study


@pytest.fixture(scope="module")
def study(finished_study):
    return pd.read_csv(finished_study / "study.csv", keep_default_na=False, na_values=["", "nan"])


def table(folder, name):
    return pd.read_csv(folder / f"{name}.csv")


def swept(folder, model, place):
    return pd.read_csv(folder / "sweeps" / model / place / "domains.csv")


def ece_of(confidence, correct):
    """15 equal bins, bin by bin."""
    place = np.minimum((confidence * 15).astype(int), 14)
    gaps = [abs(correct[place == k].mean() - confidence[place == k].mean()) * (place == k).mean() for k in set(place)]
    return sum(gaps)


def test_every_row_of_every_sweep_is_there(study):
    source = ["none", "temperature", "clustered_2", "pixels_50", "all"]
    own = study[(study.model == "plain") & (study.region == "band")]
    assert own[own.place == "source"].calibration.tolist() == source
    assert sorted(own[own.domain == "first"].calibration) == sorted([*source, "oracle"])
    assert own[own.place == "weather"].calibration.tolist() == ["none", "temperature"] * 3
    assert not study.duplicated(["model", "calibration", "place", "domain", "region", "corruption", "severity"]).any()


def test_error_and_ece_are_those_of_the_answers(finished_study, backbone_yaml, study_domains, coco_folder):
    """Through the models themselves, pixel by pixel, on the held-out pictures of the source."""
    found = table(finished_study, "error_ece")
    held = finished_study / "fits" / "plain" / "temperature" / "splits" / coco_folder.name / "held_out"
    dataset = open_dataset(coco_folder, split=str(held))
    models = {
        "none": UncertainSam(load_backbone(backbone_yaml), None).eval(),
        "temperature": load_exported(finished_study / "fits" / "plain" / "temperature"),
    }
    assert len(dataset) == 2
    for name, model in models.items():
        confidence, correct = [], []
        for n in range(2):
            sample = dataset[n]
            answer = answer_image({"": model}, sample, ProtocolConfig(clicks=1))[""]
            p = answer.probability.numpy().astype(float).ravel()
            confidence.append(np.maximum(p, 1 - p))
            correct.append((answer.masks == sample.masks).ravel())
        row = found[(found.model == "plain") & (found.calibration == name) & (found.place == "source")]
        (image,) = row[row.region == "image"].itertuples()
        assert image.ece == pytest.approx(ece_of(np.concatenate(confidence), np.concatenate(correct)), abs=1e-5)
        assert image.parameters == sum(p.numel() for p in model.backbone.sam.parameters())


def test_means_over_domains(finished_study):
    found = table(finished_study, "error_ece")
    (mean,) = found.query("model == 'plain' and calibration == 'oracle' and domain == 'mean' and region == 'band'").ece
    own = []
    for domain in ("first", "second"):
        rows = swept(finished_study, "plain", f"domains/{domain}")
        rows = rows[(rows.model == "oracle (oracle)") & (rows.region == "band")]
        own.append(rows.ece.iloc[0])
    assert mean == pytest.approx(np.mean(own))
    wide = table(finished_study, "calibration_ece").set_index(["model", "calibration", "region"])
    assert wide.domains_ece["plain", "oracle", "band"] == pytest.approx(np.mean(own))
    assert np.isnan(wide.source_ece["plain", "oracle", "band"])
    assert wide.domains["plain", "oracle", "band"] == 2


def test_wins_over_no_calibration():
    study = pd.DataFrame(
        {"model": "m", "parameters": 1, "calibration": c, "place": "domain", "domain": d, "region": "band"}
        | {"images": 1, "objects": 1, "jf": 0.5, "ece": e, "nll": 2 * e, "prr": 3 * e}
        for c, values in {"none": [0.1, 0.2, 0.3, 0.4], "temperature": [0.15, 0.1, 0.1, 0.1]}.items()
        for d, e in zip("abcd", values, strict=True)
    )
    found = tables.calibration_ece(study).set_index("calibration")
    assert found.better["temperature"] == 3
    assert np.isnan(found.better["none"])
    assert found.p["temperature"] == pytest.approx(0.25)  # ranks 1 against 2, 3 and 4: two of 16 signs on either side
    assert found.domains_prr["temperature"] == pytest.approx(0.3375)


def test_ablations_hold_the_rows_that_belong_to_them(finished_study):
    clusters, pixels = table(finished_study, "cluster_ece"), table(finished_study, "pixel_ece")
    assert clusters[(clusters.place == "source") & (clusters.region == "band")].clusters.tolist() == [1, 2]
    assert pixels[(pixels.place == "source") & (pixels.region == "band")].pixels.tolist() == [50, 20_000]
    assert set(clusters.model) == set(pixels.model) == {"plain"}
    rows = [swept(finished_study, "plain", f"domains/{domain}") for domain in ("first", "second")]
    own = [r[(r.model == "pixels_50") & (r.region == "image")].ece.iloc[0] for r in rows]
    (found,) = pixels.query("place == 'domain' and region == 'image' and pixels == 50").ece
    assert found == pytest.approx(np.mean(own))


def test_ood_auroc_ranks_pictures_by_mean_confidence(finished_study, backbone_yaml, study_domains, coco_folder):
    """Every pair of a domain's and the source's answers, one by one."""
    model = UncertainSam(load_backbone(backbone_yaml), None).eval()
    fits = finished_study / "fits" / "plain"
    lists = {
        "source": (coco_folder, fits / "temperature" / "splits" / coco_folder.name / "held_out", 2),
        "first": (study_domains / "first", fits / "oracle" / "first" / "splits" / "first" / "held_out", 2),
    }
    means = {}
    for name, (folder, split, limit) in lists.items():
        dataset, means[name] = open_dataset(folder, split=str(split)), []
        for n in range(limit):
            p = answer_image({"": model}, dataset[n], ProtocolConfig(clicks=1))[""].probability.numpy().astype(float)
            means[name] += np.maximum(p, 1 - p).mean((1, 2)).tolist()
    pairs = [(a < b) + 0.5 * (a == b) for a in means["first"] for b in means["source"]]
    found = table(finished_study, "ranking").query("model == 'plain' and calibration == 'none' and region == 'image'")
    (value,) = found[found.domain == "first"].ood_auroc
    assert value == pytest.approx(np.mean(pairs), abs=0.02)  # means within a bin count as ties
    assert found[found.place == "source"].ood_auroc.isna().all()


def test_rss_under_weather(finished_study):
    found = table(finished_study, "weather_rss")
    clean = found[found.level == 0]
    assert clean.corruption.isna().all()
    assert sorted(
        set(found[found.level > 0][["corruption", "severity", "level"]].itertuples(index=False, name=None))
    ) == [
        ("fog", "5", 5),
        ("rain", "heavy", 3),
    ]
    for row in found.to_dict("records"):
        terms = {name: row[f"{name}_image"] for name in ("p_acc_cert", "p_unc_inacc")}
        assert row["rss"] == pytest.approx(rss(miou=row["j"], ece=1 - row["1-ece"], **terms))
    rows = swept(finished_study, "plain", "weather")
    (own,) = rows[(rows.model == "none") & (rows.region == "band") & rows.domain.str.endswith("+fog5")][:1].rss
    keys = "model == 'plain' and calibration == 'none' and region == 'band' and severity == '5'"
    assert found.query(keys).rss.item() == pytest.approx(own)


def test_conformal_coverage(finished_study):
    found = table(finished_study, "conformal")
    assert set(found.calibration) == {"none", "temperature"}
    objects = pd.read_parquet(finished_study / "sweeps" / "plain" / "domains" / "first" / "objects.parquet")
    own = objects[objects.model == "none"]
    (row,) = found.query("model == 'plain' and calibration == 'none' and domain == 'first'").itertuples()
    assert row.coverage == pytest.approx(own.groupby("image").coverage.mean().mean())
    assert row.outer_size == pytest.approx(own.outer_size.median())
    assert row.images == own.image.nunique()


def test_a_temperature_moves_no_mask_and_no_ranking(study):
    own = study[(study.model == "plain") & (study.region == "image") & (study.place != "weather")]
    own = own.set_index(["domain", "calibration"])
    for place in ("source", "first"):
        none, after = (own.loc[(place, row)] for row in ("none", "temperature"))
        assert none.jf.item() == after.jf.item()
        assert none.prr.item() == pytest.approx(after.prr.item(), abs=0.1)
        assert none.ece.item() != after.ece.item()


def test_pages_and_pictures(finished_study):
    page = (finished_study / "index.md").read_text()
    for name in tables.TABLES:
        assert f"[{name}.csv]({name}.csv)" in page
        with Image.open(finished_study / f"{name}.png") as picture:
            assert picture.size[0] > 300
    assert "| domain | 2 | 4 | " in page
    assert "| weather | 3 | 6 | " in page


def test_a_study_without_targets_corruptions_and_bounds(study):
    few = study[(study.place != "weather") & study.calibration.isin(["none", "temperature"])]
    few = few.drop(columns=["coverage", "purity", "outer_size", "inner_size", "undecided"])
    assert {name: len(make(few)) for name, make in tables.TABLES.items()} == {
        "error_ece": 16,
        "calibration_ece": 4,
        "cluster_ece": 0,
        "pixel_ece": 0,
        "ranking": 12,
        "weather_rss": 0,
        "conformal": 0,
    }


def test_only_rows_of_the_plan_count_and_each_must_be_there(finished_study, study_config, tmp_path):
    """A sweep of heads has further scores, and vanilla SAM 2 beside the models."""
    copy = replace(study_config, out=str(tmp_path / "copy"))
    shutil.copytree(finished_study, copy.out)
    folder = tmp_path / "copy" / "sweeps" / "plain" / "source"
    rows, manifest = pd.read_csv(folder / "domains.csv"), json.loads((folder / "manifest.json").read_text())
    vanilla = rows[rows.model == "none"].assign(model="vanilla", ece=9.0)
    others = rows.drop_duplicates(["model", "region"]).assign(score="another", ece=9.0)
    pd.concat([rows, others, vanilla]).to_csv(folder / "domains.csv", index=False)
    manifest["models"].append(manifest["models"][0] | {"name": "vanilla"})
    (folder / "manifest.json").write_text(json.dumps(manifest))
    pd.testing.assert_frame_equal(read_study(Plan(copy)), read_study(Plan(study_config)))
    pd.concat([rows[rows.model != "all (all)"], vanilla]).to_csv(folder / "domains.csv", index=False)
    manifest["models"] = [entry for entry in manifest["models"] if entry["name"] != "all (all)"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RuacError, match="source: no row of 'all'"):
        read_study(Plan(copy))
