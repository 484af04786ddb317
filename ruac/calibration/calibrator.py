"""What a calibrator is: a module that turns logits into logits, fitted after training and stored in one file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ruac.base.config import config_from
from ruac.base.errors import RuacError, brief
from ruac.base.files import atomic_path
from ruac.calibration.answers import Answers, Evidence, check_logits

SOURCE, ORACLE, ALL = "source", "oracle", "all"


@dataclass
class Origin:
    """Where a calibrator comes from. fitted_on: `SOURCE` images, images of the target itself (`ORACLE`), or both
    (`ALL`). model: hash of the model whose logits it is for; image_size: side of that model's pictures. None for
    logits of one's own."""

    fitted_on: str = SOURCE
    model: str | None = None
    image_size: int | None = None

    def validate(self) -> None:
        if self.fitted_on not in (SOURCE, ORACLE, ALL):
            raise RuacError(f"fitted_on: {self.fitted_on!r}, expected {SOURCE}, {ORACLE} or {ALL}")


@dataclass
class NoSettings:
    """A kind that has nothing to set."""


class Calibrator(nn.Module):
    """Post-hoc calibration: `fit` on pixels with truth, `apply` to logits, `save` and `load`.

    kind: its name in the registry. settings: which field of a calibration's config is its own, "" for none.
    reads: of `Evidence`, what `apply` needs beside the logits. every_click: fitted to the answers after every click,
    not to the last ones alone. keeps_masks: no logit changes sign, whatever was fitted.
    """

    kind: ClassVar[str]
    settings: ClassVar[str] = ""
    Config: ClassVar[type] = NoSettings
    reads: ClassVar[tuple[str, ...]] = ()
    every_click: ClassVar[bool] = False

    def __init__(self, config: Any = None):
        super().__init__()
        self.config = self.Config() if config is None else config
        self.origin = Origin()

    @property
    def keeps_masks(self) -> bool:
        return True

    def fit(self, answers: Sequence[Answers], *, seed: int = 0) -> None:
        """Learn from `answers`, one entry per picture, in constant memory: entries are asked for one at a time.

        Raises `RuacError` for too few of them, or pixels from which nothing can be learned.
        """
        raise NotImplementedError

    def apply(self, logits: Any, evidence: Evidence | None = None) -> Any:
        """Calibrated logits of any ``[N, 1, h, w]``; without evidence, of logits of any shape.

        Raises `RuacError` for logits that are not finite or are probabilities, and for evidence that is missing.
        """
        if callable(logits):  # torch has a method of this name, which calls a function on all submodules
            return super().apply(logits)
        logits = torch.as_tensor(logits)
        check_logits(logits)
        return self(logits.float(), evidence or Evidence())

    def forward(self, logits: Tensor, evidence: Evidence) -> Tensor:
        """The same, unchecked."""
        raise NotImplementedError

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, with kind, config and origin in its header."""
        header = {
            "kind": self.kind,
            "config": json.dumps(asdict(self.config)),
            "origin": json.dumps(asdict(self.origin)),
        }
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, metadata=header)
        return Path(path)

    @classmethod
    def load(cls, path: str | Path, *, model: str | None = None, image_size: int | None = None) -> Calibrator:
        """Read a file of `save`, of this kind. model, image_size: of what it shall be applied to, if that is known.

        Raises `RuacError` for a file that is none or of another kind, and for another model's or resolution's.
        """
        header, tensors = read_calibrator(path)
        if header["kind"] != cls.kind:
            raise RuacError(f"{path}: a calibrator of kind {header['kind']!r}, expected {cls.kind!r}")
        calibrator = cls(config_from(cls.Config, header["config"], f"{path}: config"))
        calibrator.origin = config_from(Origin, header["origin"], f"{path}: origin")
        for (name, given), (known, wanted) in (
            (("image_size", image_size), ("image_size", calibrator.origin.image_size)),
            (("model", model), ("model", calibrator.origin.model)),
        ):
            if given is not None and wanted is not None and given != wanted:
                found = (str(x)[:12] + ("..." if known == "model" else "") for x in (wanted, given))
                raise RuacError(f"{path}: fitted for {name} {next(found)}, expected {next(found)}")
        for name, buffer in calibrator.named_buffers():  # some take their size from what they were fitted to
            if name in tensors and buffer.shape != tensors[name].shape:
                calibrator._buffers[name] = torch.zeros_like(tensors[name])
        try:
            calibrator.load_state_dict(tensors)
        except RuntimeError as error:
            raise RuacError(f"{path}: does not fit its config: {brief(error)}") from error
        return calibrator.requires_grad_(False).eval()


def read_calibrator(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors of a calibrator's file. Raises `RuacError` for a file that is missing or none."""
    if not Path(path).is_file():
        raise RuacError(f"{path}: not found; expected the file of a calibrator")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
        parsed = {"kind": header["kind"]} | {name: json.loads(header[name]) for name in ("config", "origin")}
    except (OSError, KeyError, ValueError, RecursionError, SafetensorError) as error:
        raise RuacError(f"{path}: cannot be read as a calibrator: {brief(error)}") from error
    return parsed, tensors
