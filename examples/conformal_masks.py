"""An inner and an outer mask: wrong by at most a chosen share, in expectation, on pictures like those of the fit.

python examples/conformal_masks.py [OUT]
"""

import sys
from pathlib import Path

import numpy as np

from ruac import Predictor
from ruac.backbone.prompts import central_pixel
from ruac.data.open import open_dataset
from ruac.data.synthetic.scene_sets import SceneSets, write_scene_sets
from ruac.evaluation.conformal.fit import ConformalConfig, run_conformal
from ruac.evaluation.protocol import ProtocolConfig
from ruac.inference.predictor import DEFAULT

ALPHA = 0.2

out = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/examples/conformal")
write_scene_sets(SceneSets(out=str(out / "scenes"), train=10, val=20, domain=1, shifts=["fog"]))
source = out / "scenes" / "source"

# As `ruac conformal source=...@val export=... alpha=0.2 protocol.clicks=1 out=...` does.
bounds = run_conformal(
    ConformalConfig(
        source=f"{source}@val",  # pictures that the model was not trained on
        export=str(DEFAULT),
        alpha=ALPHA,
        out=str(out / "bounds.json"),
        protocol=ProtocolConfig(clicks=1),  # asked as it is asked below
    )
)

predictor = Predictor(conformal=bounds)
fresh = open_dataset(source, split="train")  # here: others than those of the fit
missed, impure = [], []  # of each picture, the mean over its objects
for sample in (fresh[index] for index in range(len(fresh))):
    predictor.set_image(sample.image)
    shares = []
    for truth in sample.masks:
        answer = predictor.predict([central_pixel(truth)], [1], alpha=ALPHA)
        inner, outer = answer.inner[0], answer.outer[0]
        shares.append([(truth & ~outer).sum() / truth.sum(), (inner & ~truth).sum() / max(1, inner.sum())])
    missed.append(np.mean(shares, axis=0)[0])
    impure.append(np.mean(shares, axis=0)[1])
print(f"alpha {ALPHA}, {len(missed)} pictures that the fit did not see")
print(f"outer masks miss {np.mean(missed):.3f} of the object, inner masks are {np.mean(impure):.3f} impure")
