"""What is answered to a session: mask, doubt, bounds, a verdict and the next click."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ruac.base.assets import asset_root
from ruac.base.errors import RuacError
from ruac.conformal.bounds import MaskBounds
from ruac.demo.session import Session
from ruac.inference.bounds import read_bounds
from ruac.inference.next_click import NextClick, next_click
from ruac.inference.predictor import Predictor
from ruac.inference.second_look import LooksConfig

MODELS = {"nano": "ruac_nano", "nano_scale": "ruac_nano_scale"}
"""Exports in ``checkpoints/`` by the name that the page shows."""

FITS = Path(__file__).parent / "fits"
"""Bounds and reliability that do not lie beside a model, fitted on held-out source pictures; its README says how."""

REMEMBERED = 64  # earlier answers, as prompts


@dataclass(frozen=True, eq=False)
class Shown:
    """The best mask of an answer; maps are ``[H, W]``.

    mask, inner, outer: bool. uncertainty: float32 in [0, 1]. predicted_iou: by SAM 2. reliability: by the fit.
    accepted: whether it belongs to those that keep the chosen risk. suggestion: None where no doubt is left. seconds:
    from click to this.
    """

    mask: np.ndarray
    uncertainty: np.ndarray
    inner: np.ndarray
    outer: np.ndarray
    predicted_iou: float
    reliability: float
    accepted: bool
    suggestion: NextClick | None
    seconds: float


def export_of(name: str) -> Path:
    """The folder of one of `MODELS`."""
    return asset_root() / "checkpoints" / MODELS[name]


def fitted(name: str, file: str) -> Path:
    """A fit of one of `MODELS`: the file beside the model, else the one in `FITS`."""
    own = export_of(name) / file
    return own if own.is_file() else FITS / MODELS[name] / file


class Models:
    """The embedded models, each loaded at its first use, with the fits of each; one answer at a time.

    device: as of `Predictor`.
    """

    def __init__(self, device: str | None = None):
        self._device = device
        self._predictors: dict[str, Predictor] = {}
        self._bounds: dict[tuple[str, tuple[str, ...]], MaskBounds] = {}
        self._logits: OrderedDict[tuple, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def predictor(self, name: str) -> Predictor:
        """The predictor of that name. Raises `RuacError` for a name that is not in `MODELS`."""
        if name not in MODELS:
            raise RuacError(f"model {name!r}: expected one of {', '.join(MODELS)}")
        if name not in self._predictors:
            fit = fitted(name, "reliability.json")
            self._predictors[name] = Predictor(export_of(name), reliability=fit, device=self._device)
        return self._predictors[name]

    def bounds(self, name: str, looks: tuple[str, ...]) -> MaskBounds:
        """Conformal bounds of a model that looks so."""
        if (name, looks) not in self._bounds:
            path = fitted(name, f"{'_'.join(('conformal', *looks))}.json")
            model = self.predictor(name).model
            self._bounds[name, looks] = read_bounds(path, model.looking(LooksConfig(list(looks)) if looks else None))
        return self._bounds[name, looks]

    def ask(self, session: Session) -> Shown | None:
        """The answer to the clicks of `session`, the same whatever was asked before; None without a picture or a click.

        Each click sees the mask before it, as in the evaluation that the fits come from (evaluation, sec. 2). Raises
        `RuacError` for an unknown model, or an alpha or risk that the fits do not allow.
        """
        if session.picture is None or not session.clicks:
            return None
        start, wish = time.perf_counter(), session.settings
        with self._lock:
            predictor, bounds = self.predictor(wish.model), self.bounds(wish.model, wish.looks)
            predictor.set_image(session.picture)
            earlier = self._earlier(predictor, session)
            answer = predictor.predict(session.points, session.labels, mask_input=earlier, looks=wish.looks or None)
            accepted = predictor.accept(answer, wish.risk, looks=wish.looks)
        mask, probability = answer.masks[0], answer.probability[0]
        inner, outer = bounds.at(wish.alpha)(probability)
        return Shown(
            mask=mask,
            uncertainty=answer.uncertainty[0],
            inner=inner,
            outer=outer,
            predicted_iou=float(answer.scores[0]),
            reliability=float(answer.reliability[0]),
            accepted=bool(accepted[0]),
            suggestion=next_click(mask, probability, clicked=session.points),
            seconds=time.perf_counter() - start,
        )

    def _earlier(self, predictor: Predictor, session: Session) -> np.ndarray | None:
        """Logits of the answer to all clicks but the last, asked for if they are not remembered."""
        before = session.undone()
        if not before.clicks:
            return None
        picture = hashlib.sha256(f"{session.picture.shape}".encode() + session.picture.tobytes()).digest()
        key = (session.settings.model, picture, before.clicks)
        if key not in self._logits:
            prompt = self._earlier(predictor, before)
            self._logits[key] = predictor.predict(before.points, before.labels, mask_input=prompt).logits[0]
            while len(self._logits) > REMEMBERED:
                self._logits.popitem(last=False)
        return self._logits[key]
