"""Importing the backbone leaves Hydra's global state to the caller. Each case needs a fresh interpreter."""

import subprocess
import sys

import pytest

BACKBONE = "import ruac.backbone, ruac.backbone.sam2_parts"

CASES = {
    "the caller can initialise Hydra afterwards": f"""
{BACKBONE}
import hydra
from hydra.core.global_hydra import GlobalHydra
assert not GlobalHydra.instance().is_initialized()
with hydra.initialize(version_base=None, config_path=None):
    assert hydra.compose(overrides=["+answer=42"]).answer == 42
""",
    "what the caller has initialised stays, also after building": f"""
import hydra
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
hydra.initialize_config_module("hydra.conf", version_base="1.3", job_name="mine")
before = GlobalHydra.instance().hydra
{BACKBONE}
ruac.backbone.sam2_parts.build_official("tiny", image_size=64)
assert GlobalHydra.instance().hydra is before
assert hydra.compose(overrides=["+answer=42"]).answer == 42
""",
    "a caller who imported sam2 before can go on using it": f"""
import ruac, sam2
{BACKBONE}
import hydra
assert "model" in hydra.compose("configs/sam2.1/sam2.1_hiera_t.yaml")
""",
    "hydra.main works": f"""
{BACKBONE}
import hydra, sys
sys.argv = ["main.py", "+answer=42", "hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=none"]
@hydra.main(version_base=None, config_path=None)
def main(config):
    assert config.answer == 42
main()
""",
}


@pytest.mark.parametrize("case", CASES)
def test_hydra_state(case, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(CASES[case])
    result = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
