"""Comparing sweeps: what differs is refused by name, what is left is paired."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest

from ruac.base.errors import RuacError
from ruac.evaluation.report.compare import compare


def change_manifest(folder, change):
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def other_data(content):
    content["domains"][1]["sha256"] = "ef" * 32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["protocol"].update(clicks=5), "protocol.clicks is 3 and 5"),
        (lambda c: c["protocol"].update(native_splits="sam1"), "protocol.native_splits is None and 'sam1'"),
        (lambda c: c["environment"].update(ruac="9.9"), "environment.ruac is None and '9.9'"),
        (lambda c: c["domains"].pop(0), "domain 'camvid' is 'there' and 'not there'"),
        (other_data, "sha256 is 'cdcd.* and 'efef"),
    ],
)
def test_what_differs_is_named(results, copy, change, message):
    change_manifest(copy, change)
    with pytest.raises(RuacError, match=f"cannot be compared: .*{message}"):
        compare([str(results), str(copy)])


def test_other_objects_are_named(results, copy):
    objects = pd.read_parquet(copy / "objects.parquet")
    gone = (objects.domain == "leaves") & (objects.image == "im1")
    objects[~gone].to_parquet(copy / "objects.parquet")
    with pytest.raises(RuacError, match=f"1 objects are in one only, such as leaves/im1/ob1 in {results}"):
        compare([str(results), str(copy)])


def test_the_path_of_replayed_clicks_and_the_limit_do_not_matter(results, copy):
    change_manifest(copy, lambda c: c["protocol"].update(replay="elsewhere:vanilla", limit=3))
    assert "+0.00 [+0.00, +0.00]" in compare([str(results), str(copy)])


def test_differences_by_hand(results, copy):
    """The same sweep with J of one domain raised by a constant, its rows in another order, and F as it was."""
    objects = pd.read_parquet(copy / "objects.parquet")
    raised = (objects.domain == "leaves") & (objects.model == "ruac")
    objects.loc[raised, "j"] += 0.06
    objects.sample(frac=1, random_state=0).to_parquet(copy / "objects.parquet")
    table = pd.read_csv(copy / "domains.csv")
    rows = (table.model == "ruac") & (table.region == "band")
    table.loc[rows, "ece"] -= 0.01
    table.to_csv(copy / "domains.csv", index=False)
    text = compare([f"{results}:ruac", str(copy)], metrics=["ece", "auroc"])
    assert "| camvid | 3 | +0.00 [+0.00, +0.00] | +0.00 [+0.00, +0.00] |" in text
    assert "| leaves | 3 | +6.00 [+6.00, +6.00] | +0.00 [+0.00, +0.00] |" in text
    assert "| **mean** | 9 | +2.00 [+2.00, +2.00] | +0.00 [+0.00, +0.00] |" in text
    assert re.search(r"\| ECE \| \S+ \| \S+ \| 3 \| 0 \| 0\.25 \|", text)  # three domains of one sign: 2 / 2^3
    assert re.search(r"\| AUROC \| (\S+) \| \1 \| 0 \| 0 \| 1 \|", text)


def test_two_models_of_one_folder_and_several_sides(results):
    text = compare([f"{results}:vanilla", f"{results}:ruac", f"{results}:vanilla"])
    ours, same = text.split("\n\n" + f"{results}:vanilla (")[0], text.rpartition(f"{results}:vanilla (")[2]
    assert "(ruac.total) minus" in ours
    objects = pd.read_parquet(results / "objects.parquet").set_index(["domain", "image", "object"])
    j = objects[objects.model == "ruac"].j - objects[objects.model == "vanilla"].j
    mean = 100 * j.groupby("domain").mean().mean()
    assert f"| **mean** | 9 | {mean:+.2f} [" in text
    low, high = map(float, re.search(r"\*\*mean\*\* \| 9 \| \S+ \[(\S+), (\S+)\]", text).groups())
    assert low <= np.round(mean, 2) <= high
    assert "vanilla.entropy) minus" in same or "+0.00 [+0.00, +0.00]" in same


@pytest.mark.parametrize(
    ("specs", "options", "message"),
    [
        (["{0}"], {}, "at least two"),
        (["{0}", "{0}:nobody"], {}, "no model 'nobody', expected one of: vanilla, ruac"),
        (["{0}", "{0}/nowhere"], {}, "nowhere: results folder not found"),
        (["{0}", "{0}"], {"metrics": ["aurok"]}, "metric 'aurok'"),
        (["{0}", "{0}"], {"region": "edge"}, "region: 'edge', expected one of: image, band"),
    ],
)
def test_what_cannot_be_compared(results, specs, options, message):
    with pytest.raises(RuacError, match=message):
        compare([spec.format(results) for spec in specs], **options)


def test_a_reference_is_no_reason_to_refuse(results, copy, tmp_path):
    ours = shutil.copytree(results, tmp_path / "ours")
    for folder in (ours, copy):
        table = pd.read_csv(folder / "domains.csv")
        table.insert(1, "reference", table.domain == "camvid")
        table.to_csv(folder / "domains.csv", index=False)
        change_manifest(folder, lambda c: c["domains"][0].update(reference=True))
    change_manifest(copy, lambda c: c["domains"][0].update(sha256="00" * 32))
    assert "camvid" not in compare([str(ours), str(copy)])
