"""Tables over seeds, against sums done by hand, and against logs that were written here."""

import json

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from torch.utils.tensorboard import SummaryWriter

from ruac.base.errors import RuacError
from ruac.evaluation.metrics.band_counts import BINS, pooled_metrics
from ruac.studies.reproduce.batches import Batches
from ruac.studies.reproduce.collect import collect
from ruac.studies.reproduce.compare import over_domains, over_objects, over_pixels, over_seeds
from ruac.studies.reproduce.cost import attack_strength, training_cost
from ruac.studies.reproduce.queue import run_plan
from ruac.studies.reproduce.summary import SHOWN, write_summary

DOMAINS = ("here@val", *(f"d{n}" for n in range(7)))
OBJECTS = 12


@pytest.fixture
def swept(plan, scripts):
    """The plan with both sweeps finished; numbers are functions of model and domain, and "here@val" is a reference."""
    scripts.sweep = lambda arguments, given, log: write_sweep(given)
    assert run_plan(plan, start=scripts) == []
    for run in plan.runs():
        torch.save({"processes": 2, "step": 8}, run.folder / "last.pt")
        with SummaryWriter(run.folder / "tensorboard") as log:
            for step in range(1, 9):
                log.add_scalar("train/loss", 1.0, step, walltime=1000 + 360 * step)
                if step > 2:
                    log.add_scalar("train/attack/image_change", step / 10, step, walltime=1000 + 360 * step)
    return plan


def numbers(model, domain):
    """One number per object. Vanilla's are everywhere the same for the same domain."""
    rng = np.random.default_rng([*f"{model}{domain}".encode()])
    return 0.5 + 0.3 * rng.random(OBJECTS)


def band_counts(model, domain):
    rng = np.random.default_rng([*f"{model}{domain}".encode()])
    return rng.integers(50, size=(OBJECTS, 2, BINS), dtype=np.int32)


def write_sweep(given):
    out, models = json.loads(given["out"]), [entry["name"] for entry in json.loads(given["models"])]
    table, objects = [], []
    for domain in DOMAINS:
        for model in models:
            j = numbers(model, domain)
            for score in ("total", "own")[: 1 if model == "vanilla" else 2]:
                for region in ("image", "band"):
                    metrics = {key: j.mean() + (region == "band") + 2 * (score == "own") for key in SHOWN}
                    table.append(
                        {"domain": domain, "reference": "@" in domain, "model": model, "score": score, "region": region}
                        | {"images": 3, "objects": OBJECTS, "j": j.mean(), "f": j.mean()}
                        | metrics
                    )
            frame = {
                "domain": domain,
                "image": [f"i{n // 2}" for n in range(OBJECTS)],
                "object": [f"o{n}" for n in range(OBJECTS)],
                "model": model,
            }
            same = {"j": j, "f": j, "predicted_iou": j - 0.1, "band_error": j / 2, "band_uncertainty": j / 4}
            counts = {"band_counts": list(band_counts(model, domain).reshape(OBJECTS, -1))}
            objects.append(pd.DataFrame(frame | same | counts))
    pd.DataFrame(table).to_csv(f"{out}/domains.csv", index=False)
    pd.concat(objects).to_parquet(f"{out}/objects.parquet", index=False)
    manifest = {"protocol": {}, "models": [{"name": m} for m in models], "domains": [], "failed": [], "environment": {}}
    with open(f"{out}/manifest.json", "w") as stream:
        json.dump(manifest, stream)
    return 0


def means(model):
    return np.array([numbers(model, domain).mean() for domain in DOMAINS[1:]])


def test_over_seeds(swept):
    table = over_seeds(collect(swept, swept.sweeps[0])).set_index(["row", "score", "region", "metric"])
    ruac = table.loc["ruac", "own", "band", "ece"]
    seeds = [means(f"ruac-{seed}").mean() + 3 for seed in (0, 1)]
    assert ruac["mean"] == pytest.approx(np.mean(seeds))
    assert ruac.deviation == pytest.approx(abs(seeds[0] - seeds[1]) / np.sqrt(2))
    assert (ruac.seeds, ruac.main, table.loc["ruac", "total", "band", "ece"].main) == (2, False, True)
    vanilla = table.loc["vanilla", "total", "image", "auroc"]
    assert vanilla["mean"] == pytest.approx(means("vanilla").mean())
    assert np.isnan(vanilla.deviation)


def test_over_domains(swept):
    table = over_domains(collect(swept, swept.sweeps[0]), "vanilla").set_index(["row", "region", "metric"])
    gain = (means("ruac-0") + means("ruac-1")) / 2 - means("vanilla")
    for metric, better in (("auroc", gain > 0), ("ece", gain < 0)):
        found = table.loc["ruac", "band", metric]
        assert found.difference == pytest.approx(gain.mean())
        assert (found.better, found.worse, found.domains) == (better.sum(), (~better).sum(), 7)
        assert found.p == pytest.approx(scipy.stats.wilcoxon(gain).pvalue)
    assert "vanilla" not in table.index.get_level_values("row")


def test_a_row_like_its_baseline(swept):
    collected = collect(swept, swept.sweeps[0])
    twin = collected.values[collected.values.row == "vanilla"].assign(row="twin")
    collected = type(collected)(pd.concat([collected.values, twin]), collected.objects)
    found = over_domains(collected, "vanilla").set_index(["row", "region", "metric"]).loc["twin", "band", "ece"]
    assert (found.difference, found.better, found.worse, found.p) == (0, 0, 0, 1)


def test_over_objects(swept):
    table = over_objects(collect(swept, swept.sweeps[0]), "vanilla", replicates=4000).set_index(["row", "metric"])
    pairs = []
    for domain in DOMAINS[1:]:
        pairs.append((numbers("ruac-0", domain) + numbers("ruac-1", domain)) / 2 - numbers("vanilla", domain))
    found = table.loc["ruac", "jf"]
    assert found.difference == pytest.approx(np.mean(pairs))
    rng = np.random.default_rng(1)
    drawn = np.mean([rng.choice(d, (20000, OBJECTS)).mean(axis=1) for d in pairs], axis=0)
    assert [found.low, found.high] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=2e-3)
    assert table.loc["ruac", "gap"].difference == pytest.approx(np.mean(pairs) / 4)
    assert table.loc["ruac", "iou_error"].difference == pytest.approx(0, abs=1e-12)


def test_over_pixels(swept):
    table = over_pixels(collect(swept, swept.sweeps[0]), "vanilla", replicates=300).set_index(["row", "metric"])
    differences = []
    for domain in DOMAINS[1:]:
        both = [sum(band_counts(model, domain).sum(0) for model in row) for row in (("ruac-0", "ruac-1"), ("vanilla",))]
        differences.append(pooled_metrics(both[0])["auroc"] - pooled_metrics(both[1])["auroc"])
    found = table.loc["ruac", "auroc"]
    assert found.difference == pytest.approx(np.mean(differences))
    assert found.low < found.difference < found.high
    assert set(table.index.get_level_values("metric")) == {"auroc", "ece", "aurc", "prr"}


def test_cost_and_attack(swept):
    run = swept.runs()[0]
    cost = training_cost(run)
    assert cost["hours"] == pytest.approx(0.7)  # 7 steps of 360 s after the first
    assert (cost["steps"], cost["processes"], cost["device"]) == (8, 2, "abacus")
    attack = attack_strength(run)
    assert list(attack.step) == [3, 4, 5, 6, 7, 8]
    assert list(attack.value) == pytest.approx([0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
    with SummaryWriter(run.folder / "tensorboard") as log:  # resumed after step 6
        for step in (7, 8):
            log.add_scalar("train/attack/image_change", 2.0, step, walltime=1e6 + 360 * step)
    assert list(attack_strength(run).value) == pytest.approx([0.3, 0.4, 0.5, 0.6, 2.0, 2.0])
    assert training_cost(run)["hours"] == pytest.approx(0.8)


def test_summary(swept):
    text = write_summary(swept).read_text()
    ruac, vanilla = [means(f"ruac-{seed}") for seed in (0, 1)], means("vanilla")
    each = [100 * part.mean() for part in ruac]
    assert f"| ruac | 2 | {np.mean(each):.1f} ± {np.std(each, ddof=1):.1f} |" in text
    assert f"| vanilla | 1 | {100 * vanilla.mean():.1f} |" in text
    assert "## Sweep `replay`" in text
    assert "### Against vanilla" in text
    assert "| ruac | 2 | 8 | 0.700 | 1.400 | abacus |" in text
    assert "| ruac, image_change |  | 0.3500 | 0.5500 | 0.7500 |" in text
    folder = write_summary(swept).parent
    page = (folder / "domains.md").read_text()
    assert f"| d0 | {100 * numbers('vanilla', 'd0').mean():.1f} |" in page
    assert "| here@val (reference) |" in page
    domains = pd.read_csv(folder / "domains.csv")
    assert len(domains) == 8 * 2 * ((1 + 2 * 3) + (1 + 2 * 2))  # domains, regions, scores of the models of both sweeps
    for name in ("rows", "differences", "intervals", "cost", "attack"):
        assert len(pd.read_csv(folder / f"{name}.csv"))


def test_batches_that_saw_other_objects_are_not_compared(swept):
    folder = Batches(swept, swept.sweeps[0]).done()["ruac-1"]
    second = folder.parent / "1"
    second.mkdir()
    members = json.loads((folder / "members.json").read_text())
    (folder / "members.json").write_text(json.dumps({k: v for k, v in members.items() if k != "ruac-1"}))
    (second / "members.json").write_text(json.dumps(members))
    for name in ("domains.csv", "manifest.json", "objects.parquet"):
        (second / name).write_bytes((folder / name).read_bytes())
    assert set(collect(swept, swept.sweeps[0]).values.row) == {"vanilla", "bayes", "ruac"}
    pd.read_parquet(second / "objects.parquet").query("object != 'o3'").to_parquet(second / "objects.parquet")
    with pytest.raises(RuacError, match="own/1: vanilla answered other objects, or otherwise, than in"):
        collect(swept, swept.sweeps[0])


def test_a_score_by_name(swept):
    swept.rows[2].score = "own"
    values = collect(swept, swept.sweeps[0]).values
    assert set(values[values.main & (values.row == "ruac")].score) == {"own"}
    swept.rows[2].score = "variance"
    with pytest.raises(RuacError, match="row 'ruac': no score 'variance', expected some of: total, own"):
        collect(swept, swept.sweeps[0])


def test_nothing_to_summarise(plan):
    with pytest.raises(RuacError, match="no finished sweep to summarise"):
        write_summary(plan)
