"""A source data set and shifted domains of procedural scenes, as COCO folders on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ruac.base.errors import RuacError
from ruac.data.synthetic.scenes import SceneConfig, SceneDataset
from ruac.data.synthetic.shifts import SHIFTS
from ruac.data.write import write_coco


@dataclass
class SceneSets:
    """What to write. out: folder. train, val: source scenes in each split. domain: scenes of each shift.

    shifts: keys of `SHIFTS`. The domains show scenes of ``seed + 1``, so that no source scene recurs.
    """

    out: str = "scenes"
    seed: int = 0
    train: int = 2000
    val: int = 200
    domain: int = 200
    shifts: list[str] = field(default_factory=lambda: list(SHIFTS))
    scene: SceneConfig = field(default_factory=SceneConfig)

    def validate(self) -> None:
        for key in ("train", "val", "domain"):
            if getattr(self, key) < 1:
                raise RuacError(f"{key}: {getattr(self, key)}, expected at least 1 scene")
        if self.seed < 0:
            raise RuacError(f"seed: {self.seed}, expected at least 0")
        if unknown := [shift for shift in self.shifts if shift not in SHIFTS]:
            raise RuacError(f"shifts: {unknown[0]!r}, expected some of: {', '.join(SHIFTS)}")


def write_scene_sets(sets: SceneSets, progress: Callable[[str, int, int], None] | None = None) -> None:
    """Write ``OUT/source`` with ``train.txt`` and ``val.txt``, then ``OUT/domains/<shift>``.

    progress: called with (set, scenes written, scenes in all). A set is either whole or absent.
    Raises `RuacError` before anything is written if one of the folders exists already.
    """
    out = Path(sets.out)
    source = SceneDataset(sets.train + sets.val, seed=sets.seed, config=sets.scene)
    folders = {out / "source": source}
    for shift in sets.shifts:
        folders[out / "domains" / shift] = SceneDataset(sets.domain, seed=sets.seed + 1, config=sets.scene, shift=shift)
    for folder in folders:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise RuacError(f"{folder}: exists already, expected a new or empty folder")
    ids = [record.id for record in source.records]
    splits = {"train": ids[: sets.train], "val": ids[sets.train :]}
    for folder, dataset in folders.items():
        total = len(dataset)
        show = None if progress is None else lambda done, n=folder.name, t=total: progress(n, done, t)
        samples = (dataset[index] for index in range(total))
        write_coco(samples, folder, splits=splits if dataset is source else None, progress=show)
