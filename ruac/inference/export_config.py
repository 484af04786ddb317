"""``config.json`` of an exported folder: what it says, its versions, and what of it is believed.

The folder may come from anywhere. Nothing in it is run, nothing outside it is opened but backbones that the package
knows by name, and no number in it can ask for more memory than a model needs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from ruac.backbone import BackboneConfig
from ruac.backbone.load import backbone_name
from ruac.base.config import config_from
from ruac.base.errors import RuacError
from ruac.base.files import read_json, sha256, write_text
from ruac.base.version import VERSION
from ruac.inference.ensemble import EnsembleConfig
from ruac.inference.second_look import LooksConfig
from ruac.uncertainty import HeadConfig
from ruac.uncertainty.look_reader import LookReaderConfig

FORMAT = 2
CONFIG, WEIGHTS, CALIBRATOR = "config.json", "model.safetensors", "calibrator.safetensors"
_LONGEST = 1 << 20  # bytes of a config.json; ours have a few thousand
_LARGEST = 4096  # of any width, count or side in the parts of a model
_PARTS = ("backbone", "head", "looks", "reader")
_NEEDED = ("backbone", "backbone_included", "decoder_sha256", "head")
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What an export says of itself.

    backbone: how to rebuild it; backbone_included: whether its weights are in the folder. decoder_sha256: `fingerprint`
    of the mask decoder that the head belongs to. calibrator: kind of the one in `CALIBRATOR`. sha256: of the files with
    tensors, by name; empty for format 1, which had none. record: provenance.
    """

    backbone: BackboneConfig
    backbone_included: bool
    decoder_sha256: str
    head: HeadConfig | EnsembleConfig
    calibrator: str | None = None
    looks: LooksConfig | None = None
    reader: LookReaderConfig | None = None
    sha256: dict[str, str] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write `CONFIG`, with hashes of the files that lie beside it."""
        names = [WEIGHTS, *([CALIBRATOR] if self.calibrator else [])]
        hashed = replace(self, sha256={name: sha256(folder / name) for name in names})
        # posterior says which config the other keys of a head are of; an ensemble, which has none, does not hold it.
        content = asdict(hashed) | {"head": {"posterior": self.head.posterior} | asdict(self.head)}
        kept = {name: value for name, value in content.items() if value is not None or name not in ("looks", "reader")}
        write_text(folder / CONFIG, json.dumps({"format": FORMAT, "ruac": VERSION} | kept, indent=2) + "\n")

    def verify(self, folder: Path) -> None:
        """Raise `RuacError` for a file that is missing or does not have the hash that was recorded with it."""
        for name, expected in self.sha256.items():
            path = folder / name
            if not path.is_file():
                raise RuacError(f"{path}: not found; the export is not complete")
            if (found := sha256(path)) != expected:
                raise RuacError(
                    f"{path}: damaged or of another export: SHA-256 {found[:12]}..., {expected[:12]}... expected"
                )

    def own_backbone(self, folder: Path) -> BackboneConfig:
        """Where the backbone of this head-only export lies: under a name that the package has in ``configs/backbone``,
        or in the export's own folder. Raises `RuacError` for any other place, which only the caller may name."""
        named = self.backbone.checkpoint
        if backbone_name(self.backbone) is not None:
            return self.backbone
        if named == PurePosixPath(named).name and named.endswith(".safetensors") and "\\" not in named:
            return replace(self.backbone, checkpoint=str(folder.absolute() / named))
        raise RuacError(
            f"{folder / CONFIG}: key 'backbone.checkpoint': {named!r} is neither a known checkpoint nor a .safetensors "
            "file of this folder, and is not opened on the word of a file; expected backbone= from you, or an export "
            "that holds its backbone"
        )


def read_config(folder: str | Path) -> ExportConfig:
    """What `folder` says of itself, in whatever format up to `FORMAT`.

    Raises `RuacError` that names the key at fault, or says that the folder is no export or that of a newer version.
    """
    path = Path(folder) / CONFIG
    content = _migrated(_read_json(path), path)
    for key in _NEEDED:
        if key not in content:
            raise RuacError(f"{path}: key '{key}' is missing")
    for key in _PARTS:
        for place, number in _numbers(content.get(key), key):
            if abs(number) > _LARGEST:
                raise RuacError(f"{path}: key '{place}': {number}, expected at most {_LARGEST}")
    if not isinstance(content["backbone_included"], bool):
        raise RuacError(f"{path}: key 'backbone_included': {content['backbone_included']!r}, expected true or false")
    return ExportConfig(
        backbone=config_from(BackboneConfig, content["backbone"], f"{path}: backbone"),
        backbone_included=content["backbone_included"],
        decoder_sha256=_hash(content["decoder_sha256"], f"{path}: key 'decoder_sha256'"),
        head=_head_config(content["head"], f"{path}: head"),
        calibrator=content.get("calibrator"),
        looks=config_from(LooksConfig, content["looks"], f"{path}: looks") if "looks" in content else None,
        reader=config_from(LookReaderConfig, content["reader"], f"{path}: reader") if "reader" in content else None,
        sha256=content["sha256"],
        record=content.get("record", {}),
    )


def _read_json(path: Path) -> Any:
    if path.is_file() and (size := path.stat().st_size) > _LONGEST:
        raise RuacError(f"{path}: {size} bytes, expected at most {_LONGEST}")
    return read_json(path, "not found; expected a folder written by ruac export")


def _migrated(content: Any, path: Path) -> dict:
    """The content as the current format has it."""
    found = content.get("format") if isinstance(content, dict) else None
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise RuacError(f"{path}: expected an export of format {FORMAT} or older")
    if found > FORMAT:
        raise RuacError(f"{path}: format {found} of a newer ruac, expected {FORMAT} or older; update ruac")
    if found == 1:  # had no hashes; keys of heads that were renamed since are seen to by `HeadConfig`
        return content | {"sha256": {}}
    hashes, wanted = content.get("sha256"), {WEIGHTS} | ({CALIBRATOR} if content.get("calibrator") else set())
    if not isinstance(hashes, dict) or set(hashes) != wanted:
        raise RuacError(f"{path}: key 'sha256': expected the hashes of {' and '.join(sorted(wanted))}")
    for name, value in hashes.items():
        _hash(value, f"{path}: key 'sha256.{name}'")
    return content


def _hash(value: Any, where: str) -> str:
    if not isinstance(value, str) or not _HASH.fullmatch(value):
        raise RuacError(f"{where}: expected a SHA-256, 64 hexadecimal digits")
    return value


def _numbers(value: Any, place: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key != "seed":  # which may be anything, and nothing grows with it
                yield from _numbers(inner, f"{place}.{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _numbers(inner, f"{place}[{index}]")
    elif isinstance(value, (int, float)):
        yield place, value


def _head_config(entry: Any, where: str) -> HeadConfig | EnsembleConfig:
    if isinstance(entry, dict) and entry.get("posterior") == "ensemble":
        return config_from(EnsembleConfig, {key: value for key, value in entry.items() if key != "posterior"}, where)
    return config_from(HeadConfig, entry, where)
