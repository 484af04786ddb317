"""A picture in any of the forms that users have it in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ruac.base.errors import RuacError
from ruac.data.sample import read_image, to_rgb


def picture_of(image: Any, name: str = "image") -> np.ndarray:
    """``uint8 [H, W, 3]`` RGB from such an array, a PIL image, a path, or a tensor.

    Files and PIL images are seen as a person sees them, EXIF orientation applied. Tensors are as torchvision makes
    them: ``[3, H, W]``, uint8 or floating point in [0, 1], which is brought back to 8 bits. name: begins what is said
    of an image that cannot be used. Raises `RuacError` for an unreadable file, or another type, shape or range.
    """
    if isinstance(image, (str, Path)):
        image = read_image(Path(image).expanduser())
    elif isinstance(image, Image.Image):
        image = to_rgb(ImageOps.exif_transpose(image), name)
    elif isinstance(image, Tensor):
        image = _from_tensor(image, name)
    if not isinstance(image, np.ndarray):
        raise RuacError(f"{name}: {type(image).__name__}, expected an array, a tensor, a PIL image or a path")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise RuacError(f"{name}: {image.dtype} {image.shape}, expected uint8 [H, W, 3] in RGB")
    return image


def _from_tensor(image: Tensor, name: str) -> np.ndarray:
    kind = str(image.dtype).removeprefix("torch.")
    if image.ndim != 3 or image.shape[0] != 3 or not image.numel():
        raise RuacError(f"{name}: tensor {kind} {tuple(image.shape)}, expected [3, H, W] in RGB")
    image = image.detach().cpu().permute(1, 2, 0)
    if image.is_floating_point():
        if not (image.isfinite().all() and 0 <= float(image.min()) <= float(image.max()) <= 1):
            raise RuacError(f"{name}: tensor {kind} beyond [0, 1], expected a picture that is not normalised")
        image = (image.float() * 255).round().to(torch.uint8)
    return image.contiguous().numpy()
