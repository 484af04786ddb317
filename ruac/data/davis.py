"""Video trees of DAVIS and MOSE: ``JPEGImages/<clip>/*.jpg`` with palette masks in ``Annotations/<clip>/*.png``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ruac.base.errors import RuacError
from ruac.data.id_masks import check_size, read_objects, split_ids, values_in, values_in_files
from ruac.data.sample import Record, Sample, check_inside, check_orientation, read_image, read_list

FRAMES = ("first", "all")


class DavisTree:
    """Single frames of annotated clips; ids are ``clip/frame`` and ``clip/frame/value``.

    root: folder with ``JPEGImages/`` and ``Annotations/``, each with the clips directly inside or
    in ``480p/``. split: a text file with one clip per line, given as a path or as a name NAME found
    as ``ImageSets/**/NAME.txt``; None for all clips. frames: "first" takes the first annotated
    frame of each clip that shows an object, "all" every one; frames without an object are left out,
    and so are images without an annotation (data sets that annotate every fifth frame have them).

    Only its masks know which objects a frame shows, so "all" reads every mask once here (in threads,
    a few milliseconds each; nothing is stored on disk). Raises `RuacError` that names the file at fault.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        split: str | None = None,
        frames: str = "first",
        name: str | None = None,
        orientation: str = "seen",
    ):
        if frames not in FRAMES:
            raise RuacError(f"frames: {frames!r}, expected one of: {', '.join(FRAMES)}")
        check_orientation(orientation)
        self._orientation = orientation
        self.root = Path(root)
        self.name = name or self.root.name
        self._images = _clips_folder(self.root / "JPEGImages")
        self._annotations = _clips_folder(self.root / "Annotations")
        clips = _folders(self._annotations) if split is None else self._split(split)
        if split is None and (bare := sorted(set(_folders(self._images)) - set(clips))):
            raise RuacError(f"{self._images / bare[0]}: clip without masks; expected {self._annotations / bare[0]}")

        self.records: list[Record] = []
        self._values: list[list[int]] = []
        for mask, image, values in self._first(clips) if frames == "first" else self._all(clips):
            if values:
                key = f"{mask.parent.name}/{mask.stem}"
                ids = tuple(f"{key}/{value}" for value in values)
                self.records.append(Record(key, image, ids, annotations=(mask,)))
                self._values.append(values)
        if not self.records:
            raise RuacError(f"{self._annotations}: no frame with an object; expected palette PNGs of object numbers")

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        record = self.records[index]
        (path,) = record.annotations
        ids = read_objects(path)
        image = read_image(record.path, size=ids.shape, orientation=self._orientation)
        check_size(ids, image.shape[:2], path, record.path)
        masks = split_ids(ids, self._values[index])
        if not masks.any(axis=(1, 2)).all():
            raise RuacError(f"{path}: has changed since the data set was opened")
        return Sample(record, image, masks)

    def _first(self, clips: list[str]) -> Iterator[tuple[Path, Path, list[int]]]:
        for clip in clips:
            for mask, image in self._frames(clip):
                if values := values_in(read_objects(mask)):
                    yield mask, image, values
                    break

    def _all(self, clips: list[str]) -> Iterator[tuple[Path, Path, list[int]]]:
        pairs = [pair for clip in clips for pair in self._frames(clip)]
        for pair, values in zip(pairs, values_in_files(mask for mask, _ in pairs), strict=True):
            yield *pair, values

    def _frames(self, clip: str) -> list[tuple[Path, Path]]:
        """Mask and image of every annotated frame of a clip, in order."""
        folder = self._annotations / clip
        masks = sorted(folder.glob("*.png")) if folder.is_dir() else []
        if not masks:
            raise RuacError(f"{folder}: no masks; expected a folder of palette PNGs, one per frame")
        images = {p.stem: p for p in (self._images / clip).glob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png")}
        for mask in masks:
            if mask.stem not in images:
                raise RuacError(f"{mask}: mask without an image; expected {self._images / clip / mask.stem}.jpg")
        return [(mask, images[mask.stem]) for mask in masks]

    def _split(self, split: str) -> list[str]:
        path = Path(split)
        if not path.is_file():
            found = sorted((self.root / "ImageSets").glob(f"**/{split}.txt")) if not path.is_absolute() else []
            if not found:
                raise RuacError(f"{self.root / 'ImageSets'}: split {split!r} not found; expected **/{split}.txt")
            if len(found) > 1:
                names = ", ".join(p.relative_to(self.root / "ImageSets").with_suffix("").as_posix() for p in found)
                raise RuacError(f"{self.root / 'ImageSets'}: split {split!r} is ambiguous, expected one of: {names}")
            path = found[0]
        clips = read_list(path)
        for number, clip in enumerate(clips, start=1):
            check_inside(clip, f"{path}: line {number}")
            if not (self._annotations / clip).is_dir() or not (self._images / clip).is_dir():
                raise RuacError(f"{path}: line {number}: expected a clip with images and masks, found {clip!r}")
        return list(dict.fromkeys(clips))


def _clips_folder(folder: Path) -> Path:
    if not folder.is_dir():
        raise RuacError(f"{folder}: folder not found; expected JPEGImages/ and Annotations/ side by side")
    folder = folder / "480p" if (folder / "480p").is_dir() else folder
    if not _folders(folder):
        raise RuacError(f"{folder}: no clips; expected one folder per clip")
    return folder


def _folders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
