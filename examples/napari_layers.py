"""Picture, mask, doubt and clicks as layers in napari (extra ``napari``).

python examples/napari_layers.py [PICTURE X Y]        --no-window makes the layers and stops
"""

import sys

import napari
import numpy as np
from napari.components import ViewerModel

from ruac import Predictor
from ruac.backbone.prompts import central_pixel
from ruac.data.synthetic.scenes import SceneDataset
from ruac.inference.picture import picture_of

given = [word for word in sys.argv[1:] if word != "--no-window"]
if given:
    image, click = picture_of(given[0]), (float(given[1]), float(given[2]))
else:
    scene = SceneDataset(4, seed=1)[3]
    image, click = scene.image, central_pixel(scene.masks[0])

predictor = Predictor()
predictor.set_image(image)
answer = predictor.predict(point_coords=[click], point_labels=[1])

# A viewer without its window holds the same layers, where there is no screen.
viewer = ViewerModel() if "--no-window" in sys.argv else napari.Viewer(title="ruac")
viewer.add_image(image, name="image")
viewer.add_labels(answer.masks[0].astype(np.uint8), name="mask", opacity=0.4)
viewer.add_image(
    answer.uncertainty[0], name="doubt", colormap="inferno", contrast_limits=(0, 1), opacity=0.6, blending="additive"
)
viewer.add_points([click[::-1]], name="clicks", size=8, face_color="lime")  # napari counts rows first
print(", ".join(f"{layer.name} {layer.data.shape}" for layer in viewer.layers))
if "--no-window" not in sys.argv:
    napari.run()
