"""A model as ONNX: two graphs and a JSON of what they take and give. Needs the extra ``onnx``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch.export import Dim, ExportedProgram

from ruac.base.errors import RuacError
from ruac.base.files import atomic_folder, read_json, sha256, write_text
from ruac.base.version import VERSION
from ruac.data.augment import resized, to_tensor
from ruac.inference.model import UncertainSam
from ruac.inference.onnx_graph import ANSWERS, FEATURES, PROMPTS, DecoderGraph, EncoderGraph

FORMAT = 1
CONFIG, ENCODER, DECODER = "onnx.json", "encoder.onnx", "decoder.onnx"
MOST_OBJECTS, MOST_POINTS = 1024, 256  # that a graph is promised to take


def exported_programs(model: UncertainSam) -> tuple[ExportedProgram, ExportedProgram]:
    """Encoder and decoder by ``torch.export``, see `EncoderGraph` and `DecoderGraph`; objects and points are dynamic.

    Raises `RuacError` for a model whose answer is more than one pass of SAM 2's decoder.
    """
    model = model.cpu().eval().requires_grad_(False)
    encoder, decoder, side = EncoderGraph(model), DecoderGraph(model), model.image_size
    image = torch.rand(1, 3, side, side)
    with torch.no_grad():
        features = encoder(image)
    objects, points = Dim("objects", min=1, max=MOST_OBJECTS), Dim("points", min=1, max=MOST_POINTS)
    prompts = (torch.rand(2, 3, 2), torch.ones(2, 3, dtype=torch.int64), torch.zeros(2, 1, side // 4, side // 4))
    shapes = (None, None, None, {0: objects, 1: points}, {0: objects, 1: points}, {0: objects}, {0: objects})
    with torch.enable_grad():
        return (
            torch.export.export(encoder, (image,), strict=False),
            torch.export.export(decoder, (*features, *prompts, torch.zeros(2)), dynamic_shapes=shapes, strict=False),
        )


def export_onnx(model: UncertainSam, out: str | Path) -> Path:
    """Write ``encoder.onnx``, ``decoder.onnx`` and ``onnx.json`` to the folder `out`, whole or not at all.

    Raises `RuacError` as `exported_programs` does, and without the extra.
    """
    try:
        import onnxscript  # noqa: F401
    except ImportError:
        raise RuacError("export-onnx: needs onnx and onnxscript; pip install 'ruac[onnx]'") from None
    encoder, decoder = exported_programs(model)
    with atomic_folder(out, last=CONFIG) as folder:
        for program, name, inputs, outputs in (
            (encoder, ENCODER, ["image"], FEATURES),
            (decoder, DECODER, [*FEATURES, *PROMPTS], ANSWERS),
        ):
            names = {"input_names": list(inputs), "output_names": list(outputs)}
            # In one file: with the weights beside it a graph could not be moved alone.
            torch.onnx.export(program, None, folder / name, dynamo=True, external_data=False, verbose=False, **names)
        _describe(model, folder, quantised=False)
    return Path(out)


def quantise_onnx(folder: str | Path, out: str | Path, pictures: Iterable[np.ndarray]) -> Path:
    """Write graphs of int8: the encoder with ranges seen on `pictures` (``uint8 [H, W, 3]``, some dozens), the decoder
    with ranges found as it runs. Features that the encoder gives away stay float32.

    Raises `RuacError` for a folder that is none of `export_onnx`, and without onnxruntime or pictures.
    """
    try:
        from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static
    except ImportError:
        raise RuacError("int8: needs onnxruntime; pip install 'ruac[onnx]'") from None
    folder = Path(folder)
    described = read_onnx(folder)
    side = described["image_size"]
    images: Iterator[dict] = iter([{"image": graph_image(picture, side)} for picture in pictures])
    if not (first := next(images, None)):
        raise RuacError("int8: no pictures to calibrate on")

    class Pictures(CalibrationDataReader):
        def __init__(self) -> None:
            self.rest = iter([first, *images])

        def get_next(self) -> dict | None:
            return next(self.rest, None)

    with atomic_folder(out, last=CONFIG) as made:
        ops = ["Conv", "MatMul", "Gemm"]
        quantize_static(folder / ENCODER, made / ENCODER, Pictures(), op_types_to_quantize=ops, per_channel=True)
        quantize_dynamic(
            folder / DECODER, made / DECODER, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm"]
        )
        _write(described | {"quantised": True}, made)
    return Path(out)


def graph_image(picture: np.ndarray, side: int) -> np.ndarray:
    """A picture ``uint8 [H, W, 3]`` as the encoder takes it: ``float32 [1, 3, S, S]`` in [0, 1], as SAM 2 resizes."""
    return resized(to_tensor(picture), (side, side))[None].numpy()


def read_onnx(folder: str | Path) -> dict:
    """What ``onnx.json`` says. Raises `RuacError` for a folder without it, or a graph with another hash."""
    path = Path(folder) / CONFIG
    content = read_json(path, "not found; expected a folder written by ruac export-onnx")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise RuacError(f"{path}: expected format {FORMAT}")
    for name in (ENCODER, DECODER):
        if not (path.parent / name).is_file() or sha256(path.parent / name) != content.get("sha256", {}).get(name):
            raise RuacError(f"{path.parent / name}: missing, damaged or of another export")
    return content


def _describe(model: UncertainSam, folder: Path, *, quantised: bool) -> None:
    about = {
        "format": FORMAT,
        "ruac": VERSION,
        "backbone": model.backbone.name,
        "image_size": model.image_size,
        "head": model.head.config.posterior if model.head else "none",
        "calibrator": model.calibrator and model.calibrator.kind,
        "quantised": quantised,
        "encoder": {"inputs": ["image"], "outputs": list(FEATURES)},
        "decoder": {"inputs": [*FEATURES, *PROMPTS], "outputs": list(ANSWERS)},
    }
    _write(about, folder)


def _write(about: dict, folder: Path) -> None:
    hashes = {"sha256": {name: sha256(folder / name) for name in (ENCODER, DECODER)}}
    write_text(folder / CONFIG, json.dumps(about | hashes, indent=2) + "\n")
