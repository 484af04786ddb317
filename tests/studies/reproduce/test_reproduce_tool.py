"""tools/reproduce.py from end to end, with the real entry scripts: tiny pictures, two steps, one row that breaks."""

import importlib.util
import json

import pandas as pd
import pytest
from builders import save_backbone

from ruac.backbone.load import ROOT
from ruac.base.errors import run_tool

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]


def call(*arguments):
    spec = importlib.util.spec_from_file_location("tool_reproduce", ROOT / "tools" / "reproduce.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    run_tool(module.main, [str(argument) for argument in arguments])


@pytest.fixture
def arguments(nano, coco_folder, tmp_path, monkeypatch):
    """The smoke plan on another backbone and data."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    save_backbone(nano, tmp_path)
    rows = [
        {"name": "vanilla"},
        {"name": "broken", "train": "configs/train/bayes.yaml", "overrides": ["source=nowhere"]},
        {"name": "ruac", "train": "configs/train/ruac.yaml"},
    ]
    settings = {"source": coco_folder, "domains": [coco_folder], "backbone": tmp_path / "backbone.yaml"}
    settings |= {"out": tmp_path / "out", "rows": rows, "cpu": True, "compare_with": ["vanilla"]}
    pairs = [f"{key}={json.dumps(value, default=str)}" for key, value in settings.items()]
    return [ROOT / "configs" / "reproduce" / "smoke.yaml", *pairs]


def test_smoke(arguments, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        call(*arguments)
    assert stopped.value.code == 1
    said = capsys.readouterr().out
    assert "\n1 failed:\n" in said, said
    assert said.strip().splitlines()[-1].strip().startswith("train broken-0: exit status 2: error: nowhere")

    summary = (tmp_path / "out" / "summary" / "summary.md").read_text()
    rows = pd.read_csv(tmp_path / "out" / "summary" / "rows.csv")
    assert set(rows.row) == {"vanilla", "ruac"}
    assert set(rows.sweep) == {"own", "replay"}
    jf = rows[(rows.metric == "jf") & rows.main & (rows.region == "band")].set_index(["sweep", "row"])["mean"]
    assert len(set(jf)) == 1  # the signed posterior keeps SAM 2's masks, and the clicks are the same
    assert "| ruac, offset_pixels |" in summary
    assert "| ruac | 1 | 2 |" in summary

    kept = [path for part in ("runs", "sweeps") for path in (tmp_path / "out" / part).rglob("*") if path.is_file()]
    times = {path: path.stat().st_mtime_ns for path in kept}
    call(*arguments, "--only", "ruac")
    said = capsys.readouterr().out
    assert "train ruac-0: finished" in said
    assert "done in" not in said
    assert {path: path.stat().st_mtime_ns for path in kept} == times

    call(*arguments, "--dry-run")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("train broken-0: to be trained")
    assert lines[2:] == ["sweep own: 2 of 3 models finished", "sweep replay: 2 of 2 models finished"]
