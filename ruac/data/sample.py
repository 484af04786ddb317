"""One image with its object masks, and what every reader offers."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image, ImageOps

from ruac.base.errors import RuacError, brief

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
FORMATS = ("BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""What is read, whatever a file is called. Pillow's other decoders do more than read: that of EPS runs a program."""
PAGED = ("TIFF", "GIF", "WEBP", "PNG")  # formats whose further pictures are others, not a preview of the first
MOST_PIXELS = "RUAC_MAX_PIXELS"
"""Environment variable: the largest picture that is read, in pixels. Without it Pillow's own guard holds."""


@dataclass(frozen=True)
class Record:
    """What is known of an image before it is read.

    id: stable and unique within its data set. path: the image file. origin: the collection the
    image came from ("" where there is one only), used to balance training. object_ids: stable
    ids, unique within the image, in the order of the masks. annotations: the files that the masks
    are read from, which images may share; none for masks that are drawn.
    """

    id: str
    path: Path
    object_ids: tuple[str, ...]
    origin: str = ""
    annotations: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Sample:
    """image: ``uint8 [H, W, 3]`` RGB. masks: ``bool [K, H, W]``, may overlap, none of them empty."""

    record: Record
    image: np.ndarray
    masks: np.ndarray

    def __post_init__(self) -> None:
        # Run lengths are decoded column by column; distances and counts take half as long again on such a layout.
        object.__setattr__(self, "masks", np.ascontiguousarray(self.masks))


@runtime_checkable
class MaskDataset(Protocol):
    """A sequence of samples whose records are known without reading any image."""

    name: str
    records: list[Record]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


ORIENTATION_TAG, FIRST_ON_ITS_SIDE = 0x0112, 5  # of EXIF: values from 5 on exchange width and height
TURN_BACK = {  # from a picture as it is seen to its stored pixels
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
ORIENTATIONS = ("seen", "stored")
"""What annotations were made on: the picture as a person sees it, or its stored pixels, without EXIF orientation."""


def check_orientation(orientation: str) -> None:
    """Raise `RuacError` unless it is one of `ORIENTATIONS`."""
    if orientation not in ORIENTATIONS:
        raise RuacError(f"orientation: {orientation!r}, expected {' or '.join(ORIENTATIONS)}")


Size = tuple[int, int] | None


def read_image(path: Path, *, size: Size | Callable[[], Size] = None, orientation: str = "seen") -> np.ndarray:
    """Read an image file as a person sees it, ``uint8 [H, W, 3]`` RGB: its EXIF orientation is applied.

    size: (H, W) of what was annotated, or what tells it, which is asked only for a picture that lies on its side.
    Annotations may have been made on the stored pixels. Where their size fits those and not the turned picture, the
    picture is not turned; where it fits both, only the user can tell: orientation is one of `ORIENTATIONS`.
    Raises `RuacError` if the file is missing, truncated or no image; for pixels see `to_rgb`.
    """
    with opened(path) as image:
        seen, stored = ImageOps.exif_transpose(image), image
        if (back := TURN_BACK.get(image.info.get("turned"))) is not None:
            stored = image.transpose(back)
        if orientation == "seen" and seen.size != stored.size:
            annotated = size() if callable(size) else size
            orientation = "stored" if annotated is not None and stored.size[::-1] == tuple(annotated) else "seen"
        return to_rgb(stored if orientation == "stored" else seen, path)


def to_rgb(image: Image.Image, where: Any) -> np.ndarray:
    """The pixels of a Pillow image as ``uint8 [H, W, 3]``; `where` begins what is said of them.

    Transparent pictures are laid on white, as viewers show them. Of 16-bit grey values the upper 8 bits are kept;
    where all of them fit into 8 or 12 bits, as microscopes and X-ray exports write them, the upper 8 of those, and a
    warning says so. Raises `RuacError` for floating-point pixels and for values beyond 16 bit.
    """
    if not all(image.size):
        raise RuacError(f"{where}: has no pixel")
    if image.mode == "LAB":
        raise RuacError(f"{where}: has mode LAB, which is not converted; expected RGB or grey")
    if image.mode == "F":
        raise RuacError(f"{where}: has floating-point pixels, expected 8 or 16 bit")
    if image.mode.startswith("I"):  # Pillow would cut 16 bit off at 255
        return np.repeat(_eight_bit(np.asarray(image).astype(np.int64), where)[..., None], 3, axis=2)
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema()[0] < 255:
            warnings.warn(f"{where}: is transparent in places; laid on white", stacklevel=2)
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


def _eight_bit(grey: np.ndarray, where: Any) -> np.ndarray:
    low, high = (int(grey.min()), int(grey.max())) if grey.size else (0, 0)
    if low < 0 or high > 65535:
        raise RuacError(f"{where}: has values from {low} to {high}, expected 8 or 16 bit")
    bits = next(bits for bits in (8, 12, 16) if high < 1 << bits)
    if high > 0 and bits < 16:
        warnings.warn(f"{where}: 16-bit pixels with values up to {high}; read as {bits} bit", stacklevel=3)
    return (grey * 255 // ((1 << bits) - 1)).astype(np.uint8)


def image_size(path: Path, *, orientation: str = "stored") -> tuple[int, int]:
    """(H, W) from a file's header, of its stored pixels or as a person sees it; raises as `opened` does."""
    with opened(path, decode=False) as image:
        width, height = image.size
        if image.format == "TIFF":  # whose size Pillow may have turned: ImageWidth and ImageLength
            width, height = image.tag_v2[256], image.tag_v2[257]
        on_its_side = orientation == "seen" and _orientation_tag(image) >= FIRST_ON_ITS_SIDE
        return (width, height) if on_its_side else (height, width)


@contextmanager
def opened(path: Path, *, decode: bool = True) -> Iterator[Image.Image]:
    """Open an image file and decode it inside; whatever goes wrong becomes a `RuacError` that names the file.

    Of a file with several pictures the first is read, and a warning says so. decode: or the header alone.
    Decoders raise what they like (struct.error, KeyError, zlib.error ...): no list of types would be complete.
    """
    most = _most_pixels()
    try:
        Image.init()
        with Image.open(path, formats=[kind for kind in FORMATS if kind in Image.OPEN]) as image:
            if most is not None and image.width * image.height > most:
                raise _too_large(path, image.width * image.height, most)
            if decode:
                if (pages := _pages(image)) > 1:
                    warnings.warn(f"{path}: holds {pages} pictures; the first is read", stacklevel=3)
                tag = _orientation_tag(image) if image.format == "TIFF" else 1
                image.load()
                if tag != _orientation_tag(image) and image.format == "TIFF":
                    image.info["turned"] = tag  # by Pillow, as it does with this format alone
            yield image
    except RuacError:
        raise
    except FileNotFoundError:
        raise RuacError(f"{path}: image file not found") from None
    except Image.DecompressionBombError as error:  # before there is an image to ask
        pixels, limit = (int(number) for number in re.findall(r"\d+", str(error))[:2])
        raise _too_large(path, pixels, limit) from None
    except Exception as error:
        raise RuacError(f"{path}: cannot be read as an image: {error or type(error).__name__}") from error


def _orientation_tag(image: Image.Image) -> int:
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # to look behind the pixels would decode them
    return image.getexif().get(ORIENTATION_TAG, 1)


def _most_pixels() -> int | None:
    """What the environment says, which Pillow is told as well; None leaves it to Pillow."""
    text = os.environ.get(MOST_PIXELS, "")
    if not text:
        return None
    try:
        most = int(text)
    except ValueError:
        most = 0
    if most < 1:
        raise RuacError(f"{MOST_PIXELS}: {text!r}, expected a number of pixels such as 400000000")
    if Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, most)
    return most


def check_inside(name: Any, where: Any) -> None:
    """Raise `RuacError` unless `name` is a path that stays below the folder it is looked for in.

    Of what is written down only: a link inside the folder is the user's own, and is followed.
    """
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        raise RuacError(f"{where}: file name {name!r}, expected a relative path")
    parts = name.replace("\\", "/").split("/")
    if name[0] in "/\\" or ".." in parts or re.match(r"[A-Za-z]:[/\\]", name):
        raise RuacError(f"{where}: file name {name!r}, expected a path inside its folder")


def check_pixels(height: int, width: int, where: Any) -> None:
    """Raise `RuacError` for a size that a file claims and no picture that is read can have: it would cost memory."""
    if not (_is_count(height) and _is_count(width)):
        raise RuacError(f"{where}: size {width!r}x{height!r}, expected whole numbers of at least 1 (width x height)")
    most = _most_pixels() or 2 * (Image.MAX_IMAGE_PIXELS or 1 << 40)  # Pillow's guard
    if height * width > most:
        raise _too_large(where, height * width, most)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _too_large(path: Any, pixels: int, most: int) -> RuacError:
    return RuacError(
        f"{path}: has {pixels} pixels, expected at most {most}; "
        f"to read it all the same, set the environment variable {MOST_PIXELS}={pixels}"
    )


def _pages(image: Image.Image) -> int:
    try:
        return int(getattr(image, "n_frames", 1)) if image.format in PAGED else 1
    except Exception:  # a later page is damaged; the first may be whole
        image.seek(0)
        return 2


def read_list(path: Path) -> list[str]:
    """The lines of a split file, without blank ones. Raises `RuacError` if it is missing or names nothing."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise RuacError(f"{path}: split list not found; expected a text file with one name per line") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RuacError(f"{path}: split list cannot be read: {brief(error)}") from error
    lines = [line for line in lines if line]
    if not lines:
        raise RuacError(f"{path}: the split list is empty; expected one name per line")
    return lines
