"""Where the time of a sweep goes, and what share of it metrics take."""

from __future__ import annotations

import cProfile
import pstats
import time
from collections.abc import Iterable
from pathlib import Path

import ruac
from ruac.data.sample import Sample
from ruac.evaluation.protocol import ProtocolConfig
from ruac.evaluation.score import Scores, evaluate_image
from ruac.inference.model import UncertainSam
from ruac.studies.benchmark.cases import Case
from ruac.studies.benchmark.rows import Row

LIMIT, LIMIT_SIDE = 0.05, 1024  # the target is set for pictures of this side
PARTS = {  # folder or file, and function ("": all)
    "encode": ("backbone/backbone.py", "encode"),
    "decode": ("backbone/backbone.py", "decode"),
    "head and maps": ("uncertainty/", ""),
    "clicks": ("backbone/prompts.py", ""),
    "metrics": ("evaluation/metrics/", ""),
}
REST = "upsampling and the rest"

_Function = tuple[str, int, str]  # file, line, name
_PACKAGE = Path(ruac.__file__).parent.as_posix() + "/"


def run(*, cases: Iterable[Case], repeats: int) -> list[Row]:
    """Rows of the parts of `evaluate_image`, for the head alone and with vanilla SAM 2 beside it, which doubles the
    masks' scores but shares encoder and decoder. Ratio: to the whole image."""
    rows = []
    first = Case("nano", 64, 2)
    profile_image(_both(first), first.sample())  # the metrics are compiled at their first use
    for case in cases:
        both, sample = _both(case), case.sample()
        for title, models in (("ruac", {"ruac": both["ruac"]}), ("vanilla + ruac", both)):
            least: dict[str, float] = {}
            for _ in range(repeats):
                for part, seconds in profile_image(models, sample).items():
                    least[part] = min(seconds, least.get(part, seconds))
            whole = sum(least.values())
            for part, seconds in least.items():
                target = f"<= {LIMIT}" if part == "metrics" and case.side == LIMIT_SIDE else ""
                rows.append(Row(f"{case}: {title}: {part}", seconds, seconds / whole, target))
    return rows


def _both(case: Case) -> dict[str, UncertainSam]:
    model = case.model()
    return {"vanilla": UncertainSam(model.backbone, None), "ruac": model}


def profile_image(models: dict[str, UncertainSam], sample: Sample) -> dict[str, float]:
    """CPU seconds of each part in one `evaluate_image`: every call that enters the part from elsewhere, with all it
    calls. So nothing is timed by hand, and no part can be forgotten."""
    profile = cProfile.Profile(time.process_time, builtins=False)
    profile.runcall(evaluate_image, models, sample, ProtocolConfig(), Scores(), domain="benchmark")
    stats = pstats.Stats(profile).stats
    seconds = {
        part: sum(
            entry[3]  # with all it calls
            for function, (*_, callers) in stats.items()
            if _inside(function, place)
            for caller, entry in callers.items()
            if not _inside(caller, place)
        )
        for part, place in PARTS.items()
    }
    whole = sum(own for _, _, own, _, _ in stats.values())
    return seconds | {REST: whole - sum(seconds.values())}


def _inside(function: _Function, place: tuple[str, str]) -> bool:
    file, _, name = function
    return Path(file).as_posix().startswith(_PACKAGE + place[0]) and place[1] in ("", name)
