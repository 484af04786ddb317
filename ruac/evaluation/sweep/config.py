"""What a sweep is asked for: rows, domains, and how objects are prompted."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ruac.base.errors import RuacError
from ruac.conformal.quantile import check_alpha
from ruac.data.domains import PROTOCOLS
from ruac.data.sample import check_orientation
from ruac.data.synthetic.corruptions import parse_corruption
from ruac.evaluation.protocol import ProtocolConfig
from ruac.evaluation.sweep.open import check_name
from ruac.inference.ensemble import EnsembleConfig
from ruac.inference.second_look import LooksConfig


@dataclass
class ModelConfig:
    """One row of the table. backbone: name or YAML, for vanilla SAM 2. export: a folder written by
    ruac export, for a model with a head. Exactly one of the two, or an export with the backbone
    of a head-only export.

    References without training, of vanilla SAM 2 only: temperature, the JSON file of an older fit,
    or ensemble, further passes with the same masks. unccorr: drop uncertain components of the final
    masks, of any model but an ensemble.

    looks: further looks at every object, such as zoom or flip, of any model but an ensemble, see `LooksConfig`.
    keep_masks: they change probability and uncertainty only, and leave the masks as they are. feedback: whether they
    see the first answer's mask; without it as suits the backbone.

    conformal: file of ruac conformal (or a folder with one) fitted on this model; coverage and size of inner and outer
    masks at `alpha` become columns. reliability: file of ruac fit-reliability (or a folder with one) fitted on this
    model; what it says of each mask becomes a column beside its predicted IoU."""

    name: str = "???"
    backbone: str | None = None
    export: str | None = None
    temperature: str | None = None
    ensemble: EnsembleConfig | None = None
    unccorr: bool = False
    looks: list[str] = field(default_factory=list)
    keep_masks: bool = False
    feedback: bool | None = None
    conformal: str | None = None
    alpha: float = 0.1
    reliability: str | None = None

    def looks_over(self, own: LooksConfig | None) -> LooksConfig | None:
        """The looks of this row: those named here, else the model's own, with masks kept if either says so."""
        if self.looks:
            return LooksConfig(looks=self.looks, keep_masks=self.keep_masks, feedback=self.feedback)
        feedback = self.feedback if own is None or self.feedback is not None else own.feedback
        return own and replace(own, keep_masks=own.keep_masks or self.keep_masks, feedback=feedback)

    def validate(self) -> None:
        if self.backbone is None and self.export is None:
            raise RuacError(f"model {self.name!r}: expected backbone= (vanilla) or export=")
        if sum(given is not None for given in (self.export, self.temperature, self.ensemble)) > 1:
            raise RuacError(f"model {self.name!r}: expected at most one of export=, temperature= and ensemble=")
        if self.unccorr and self.ensemble is not None:
            raise RuacError(f"model {self.name!r}: expected no unccorr= with ensemble=")
        if self.looks and self.ensemble is not None:
            raise RuacError(f"model {self.name!r}: expected no looks= with ensemble=")
        if self.looks:
            self.looks_over(None).validate()
        elif (self.keep_masks or self.feedback is not None) and self.export is None:
            key = "keep_masks=" if self.keep_masks else "feedback="
            raise RuacError(f"model {self.name!r}: expected {key} with looks= or an export that has looks")
        if self.name == "vanilla" and (self.temperature or self.ensemble or self.unccorr or self.looks):
            raise RuacError("models: the name 'vanilla' is for SAM 2 as it is")
        check_name(self.name, "model")
        check_alpha(self.alpha)


@dataclass
class SweepConfig:
    """models: the first one's backbone is also swept without a head, as "vanilla", if no model is.
    domains: folders or native downloads, see `open_domains`. reference: more of them that are no unseen domains,
    such as the source's validation split; swept and shown first, but left out of every mean and count.
    corruptions: such as "fog:3"; each domain is also swept under each of them, and these count as references,
    since the same objects again are no further domains. native_splits, native_seed: of native downloads, whose
    splits ("ruac" or "sam1"), and the seed of the sample of a large one. orientation: what annotations
    were made on where their sizes do not tell, the picture as "seen" or its "stored" pixels. limit: images per
    domain (0: all). replay: folder of an earlier sweep and the model whose clicks are repeated, as ``FOLDER:MODEL``.
    panels: pictures of each kind per domain."""

    models: list[ModelConfig] = field(default_factory=list)
    domains: list[str] = field(default_factory=list)
    reference: list[str] = field(default_factory=list)
    corruptions: list[str] = field(default_factory=list)
    native_splits: str = "ruac"
    native_seed: int = 0
    orientation: str = "seen"
    out: str = "runs/sweep"
    limit: int = 0
    replay: str | None = None
    cpu: bool = False
    panels: int = 2
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)

    def validate(self) -> None:
        if not self.models or not self.domains:
            raise RuacError("sweep: expected at least one entry under models and under domains")
        for model in self.models:
            model.validate()
        names = [model.name for model in self.models]
        if len(set(names)) < len(names):
            raise RuacError(f"models: names occur twice in {names}")
        if any(model.name == "vanilla" and model.export for model in self.models):
            raise RuacError("models: the name 'vanilla' is for a model without export=")
        for text in self.corruptions:
            parse_corruption(text)
        if self.native_splits not in PROTOCOLS:
            raise RuacError(f"native_splits: {self.native_splits!r}, expected one of: {', '.join(PROTOCOLS)}")
        check_orientation(self.orientation)
        for name in ("limit", "panels"):
            if getattr(self, name) < 0:
                raise RuacError(f"{name}: {getattr(self, name)}, expected at least 0")
        if (self.replay is None) != (self.protocol.next_click == "own_error"):
            raise RuacError("replay: expected together with protocol.next_click=replay, and only then")
