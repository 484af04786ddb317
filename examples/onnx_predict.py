"""A click, its mask and its uncertainty, with numpy and onnxruntime alone (and PIL to read and write pictures).

ruac export-onnx checkpoints/ruac_nano runs/onnx
python examples/onnx_predict.py runs/onnx photo.jpg 120 80 mask.png uncertainty.png
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
from PIL import Image

folder, picture, x, y, mask_file, uncertainty_file = sys.argv[1:]
side = json.loads((Path(folder) / "onnx.json").read_text())["image_size"]
encoder, decoder = (ort.InferenceSession(str(Path(folder) / f"{name}.onnx")) for name in ("encoder", "decoder"))

image = Image.open(picture).convert("RGB")
small = np.asarray(image.resize((side, side), Image.BILINEAR), np.float32) / 255
features = encoder.run(None, {"image": small.transpose(2, 0, 1)[None]})

click = np.array([[[float(x) * side / image.width, float(y) * side / image.height]]], np.float32)
prompts = {
    "points": click,  # [objects, points, 2]
    "labels": np.ones((1, 1), np.int64),  # 1 object, 0 background, 2 and 3 the corners of a box, -1 padding
    "mask_input": np.zeros((1, 1, side // 4, side // 4), np.float32),
    "has_mask": np.zeros(1, np.float32),
}
named = dict(zip(("embedding", "high_res_0", "high_res_1"), features, strict=True))
answer = dict(zip((o.name for o in decoder.get_outputs()), decoder.run(None, named | prompts), strict=True))

best = 1 + int(answer["scores"][0, 1:].argmax())  # 0 is the single mask, 1 to 3 the candidates
logits, uncertainty = (
    np.asarray(Image.fromarray(answer[name][0, best]).resize(image.size, Image.BILINEAR))
    for name in ("masks", "uncertainty")
)
Image.fromarray(np.uint8(255 * (logits > 0))).save(mask_file)
Image.fromarray(np.uint16(65535 * uncertainty.clip(0, 1))).save(uncertainty_file)
print(f"predicted IoU {answer['scores'][0, best]:.3f}, {(uncertainty > 0.5).mean():.1%} of the pixels are unsure")
