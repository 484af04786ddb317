"""Every mask of a picture, the most reliable first, as COCO run lengths with their reliability.

python examples/automatic_masks.py [PICTURE]
"""

import sys
from pathlib import Path

from PIL import Image

from ruac import Predictor
from ruac.data.synthetic.scenes import SceneDataset
from ruac.inference.automatic import AutomaticConfig, AutomaticMasks, save_coco

out = Path("runs/examples/automatic")
out.mkdir(parents=True, exist_ok=True)
if len(sys.argv) > 1:
    picture = Path(sys.argv[1])
else:
    picture = out / "scene.png"
    Image.fromarray(SceneDataset(1, seed=3)[0].image).save(picture)

predictor = Predictor()
maker = AutomaticMasks(predictor, AutomaticConfig(points_per_side=8, min_reliability=0.6))
found = maker.generate(picture)
for mask in found:
    print(
        f"reliability {mask['reliability']:.2f} (predicted {mask['predicted_iou']:.2f}, expected "
        f"{mask['expected_iou']:.2f}), {mask['area']} pixels, doubt inside {mask['mean_uncertainty']:.2f}"
    )
path = save_coco(out / "masks.json", found, file_name=picture.name, size=predictor.picture_size)
print(f"{len(found)} masks: {path}")
