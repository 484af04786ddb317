"""The built wheel works where there is no checkout."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
CODE = """
import numpy as np, ruac
from ruac import Predictor
from ruac.backbone import load_backbone
from ruac.base.assets import asset_root
from ruac.evaluation.report import build
from pathlib import Path
predictor = Predictor(device="cpu")
predictor.set_image(np.full((40, 60, 3), 90, np.uint8))
assert predictor.predict(point_coords=[[3, 3]], point_labels=[1]).masks.shape == (3, 40, 60)
load_backbone("nano")
assert (asset_root() / "configs" / "train" / "ruac.yaml").is_file()
assert (Path(build.__file__).parent / "templates").is_dir()
assert (Path(ruac.__file__).parent / "py.typed").is_file()
print(Path(ruac.__file__).parent)
"""
CONFIGS = """
from ruac.base.assets import named_config
from ruac.base.config import load_config
from ruac.studies.reproduce.queue import tool
from ruac.training.adversarial import TrainConfig
for given in ("ruac", "configs/train/ruac.yaml"):
    load_config(TrainConfig, named_config(given, "train"), ["source=x"])
assert tool("train")[1:] == ["-m", "ruac.cli", "train"]
"""


@pytest.mark.slow
def test_a_wheel_in_an_empty_folder(tmp_path):
    source = tmp_path / "source"
    kept = shutil.ignore_patterns(".git", ".venv", "build", "runs", "__pycache__", "*.egg-info", ".*_cache")
    shutil.copytree(ROOT, source, ignore=kept, symlinks=True)  # building leaves files behind

    def run(*words, **options):
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True, **options)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    run("-m", "pip", "wheel", str(source), "--no-deps", "--no-build-isolation", "-w", str(tmp_path / "wheels"))
    (wheel,) = (tmp_path / "wheels").glob("ruac-*.whl")
    run("-m", "pip", "install", "--no-deps", "--target", str(tmp_path / "site"), str(wheel))
    shutil.rmtree(source)
    (tmp_path / "empty").mkdir()
    environment = {"PYTHONPATH": str(tmp_path / "site"), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    options = {"cwd": tmp_path / "empty", "env": environment}
    assert run("-c", CODE, **options).strip() == str(tmp_path / "site" / "ruac")
    run("-c", CONFIGS, **options)

    Image.new("RGB", (60, 40), (90, 120, 30)).save(tmp_path / "empty" / "photo.png")
    command = [str(tmp_path / "site" / "bin" / "ruac"), "predict", "photo.png", "--point", "3", "3", "--save", "answer"]
    said = run(*command, **options)
    assert "predicted IoU" in said
    saved = {path.name for path in (tmp_path / "empty" / "answer").iterdir()}
    assert saved == {"photo.mask.png", "photo.uncertainty.png", "photo.json"}
