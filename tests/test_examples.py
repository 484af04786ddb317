"""Every script of examples/, run in an empty folder without a network, and what it says."""

import re
import runpy
import socket
import sys
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[1] / "examples"
SAYS = {  # arguments, what is printed, files that are written
    "predict_with_uncertainty": ([], r"(mask \d: .* expected IoU 0\.\d+.*\n){3}", ["runs/examples/predict.png"]),
    "second_look": ([], r"one look: mean IoU 0\.\d+ of 8 objects\nzoom    : mean IoU 0\.\d+ of 8", []),
    "calibrate": (["out"], r"band: ECE 0\.\d+ before, 0\.\d+ after", ["out/export/calibrator.safetensors"]),
    "conformal_masks": (["out"], r"outer masks miss 0\.\d+ .* are 0\.\d+ impure", ["out/bounds.json"]),
    "next_click_loop": ([], r"1 clicks: IoU 0\.\d+.*\n  next at \(\d+, \d+\), hopes to gain 0\.\d+\n2 clicks", []),
    "automatic_masks": ([], r"reliability 0\.\d+ .*\n(.*\n)*[1-9]\d* masks", ["runs/examples/automatic/masks.json"]),
    "train_on_a_folder": (
        ["out", "engine.steps=2", "engine.batch_size=1", "validation.images=1", "engine.panel_every=2"],
        r"export: out/export\npredicted IoU 0\.\d+",
        ["out/export/model.safetensors"],
    ),
    "sweep_and_table": (["out"], r"\| fog \|.*\n\| night \|.*\n\| \*\*mean\*\* \|", ["out/results/report.html"]),
    "in_place_of_sam2": ([], r"masks: \(3, 256, 256\), largest difference 0\nscores: \(3,\), largest difference 0", []),
    "napari_layers": (
        ["--no-window"],
        r"image \(256, 256, 3\), mask \(256, 256\), doubt \(256, 256\), clicks \(1, 2\)",
        [],
    ),
}
SLOW = {"calibrate", "conformal_masks", "train_on_a_folder", "sweep_and_table", "in_place_of_sam2"}


@pytest.mark.usefixtures("fresh_accelerator")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in SAYS]
)
def test_an_example_runs(name, tmp_path, monkeypatch, capsys):
    if name == "napari_layers":
        pytest.importorskip("napari", reason="needs the extra napari")

    def refuse(self, address):
        raise AssertionError(f"{name} asks the network: {address}")

    arguments, said, files = SAYS[name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
    with torch.random.fork_rng(devices=[]):
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert re.search(said, capsys.readouterr().out)
    assert not [file for file in files if not (tmp_path / file).is_file()]


def test_every_example_is_run_and_listed():
    scripts = {path.stem for path in EXAMPLES.glob("*.py")}
    assert scripts == {*SAYS, "onnx_predict"}  # which tests/inference/test_onnx.py runs
    assert scripts == set(re.findall(r"^\| \[(\w+)\.py\]\(\1\.py\)", (EXAMPLES / "README.md").read_text("utf-8"), re.M))
