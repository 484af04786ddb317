"""Fit a temperature on held-out pictures of the source: probabilities change, no mask does.

python examples/calibrate.py [OUT]
"""

import json
import sys
from pathlib import Path

from ruac import Predictor
from ruac.backbone import load_backbone
from ruac.data.synthetic.scene_sets import SceneSets, write_scene_sets
from ruac.data.synthetic.scenes import SceneDataset
from ruac.fitting.calibrate import CalibrateConfig, run_calibrate
from ruac.inference.model import UncertainSam

out = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/examples/calibrate")
write_scene_sets(SceneSets(out=str(out / "scenes"), train=1, val=12, domain=1, shifts=["fog"]))

# As `ruac calibrate kind=temperature source=... backbone=nano out=...` does. Other kinds: docs/calibration.md.
config = CalibrateConfig(
    kind="temperature", source=f"{out / 'scenes' / 'source'}@val", backbone="nano", out=str(out / "export"), cache=""
)
export = run_calibrate(config)

held_out = json.loads((export / "config.json").read_text())["record"]["held_out"]  # of pictures the fit did not see
for region, quality in held_out.items():
    print(f"{region}: ECE {quality['before']['ece']:.4f} before, {quality['after']['ece']:.4f} after")

answers = []
for predictor in (Predictor(UncertainSam(load_backbone("nano"), None)), Predictor(export)):
    predictor.set_image(SceneDataset(1, seed=5)[0].image)
    answers.append(predictor.predict([[128, 128]], [1]))
before, after = answers
assert (before.masks == after.masks).all()
inside = [answer.probability[0][answer.masks[0]].mean() for answer in answers]
print(f"the same masks; mean probability inside: {inside[0]:.3f} before, {inside[1]:.3f} after")
