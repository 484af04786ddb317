"""The command ``ruac``: one file per verb, imported only when it is asked for, so that every help is there at once."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from types import ModuleType

from ruac.base.errors import run_tool
from ruac.cli.parser import ASKED, complete

VERBS = {
    "predict": "segment an image with its uncertainty",
    "review-queue": "sort a predicted folder by risk for annotation tools",
    "demo": "click on pictures in a browser",
    "train": "train the uncertainty head on a source domain",
    "export": "turn a trained run into a model folder",
    "export-onnx": "write a model as ONNX graphs",
    "sweep": "evaluate models zero-shot over many domains",
    "report": "write the HTML report of a sweep",
    "table": "print a sweep as a Markdown or LaTeX table",
    "compare": "compare sweeps of the same objects",
    "doctor": "show versions, devices, checkpoints and what is missing",
    "quickstart": "train, export, sweep, predict and report in minutes",
    "reproduce": "train, export and sweep all rows of a plan",
    "fetch-checkpoint": "download official SAM 2.1 checkpoints",
    "calibrate": "calibrate a model on source images",
    "fit-local-temperature": "calibrate with kind=answer",
    "fit-look-reader": "fit the reader of a second look",
    "fit-reliability": "fit which masks to accept at a chosen risk",
    "fit-temperature": "calibrate with kind=temperature",
    "conformal": "fit inner and outer masks with a guarantee",
    "pseudo-label": "label pictures from prompts by class",
    "train-student": "train a segmenter from few labels and pseudo-labels",
    "make-scenes": "write procedural scenes as COCO folders",
    "prepare-domain": "check and convert the native download of a data set",
    "pretrain": "train the nano backbone promptably",
    "study": "draw what calibration is worth, by model and domain",
    "experiment": "run one of the experiments",
    "benchmark": "measure where time and memory go",
}

OLD_NAMES = {"fit-context": "fit-local-temperature"}


def main(argv: list[str] | None = None) -> None:
    """Run ``ruac VERB ...``; a `RuacError` becomes one line and exit status 2."""
    run_tool(_dispatch, argv)


def _dispatch(argv: list[str]) -> None:
    if ASKED in os.environ:
        return complete(VERBS, lambda verb: _module(verb).main([], prog=f"ruac {verb}"))
    verb, *rest = argv or ["--help"]
    verb = OLD_NAMES.get(verb, verb)
    if verb in ("-h", "--help"):
        print(_help())
    elif verb == "--version":
        from ruac import __version__

        print(f"ruac {__version__}")
    elif verb in VERBS:
        _module(verb).main(rest, prog=f"ruac {verb}")
    else:
        import difflib

        near = difflib.get_close_matches(verb, VERBS, n=1, cutoff=0.0)
        print(f"error: {verb!r}: unknown verb; did you mean {near[0]!r}? ruac --help lists them", file=sys.stderr)
        raise SystemExit(2)


def _module(verb: str) -> ModuleType:
    return import_module(f"ruac.cli.{verb.replace('-', '_')}")


def _help() -> str:
    verbs = "\n".join(f"  {verb:23}{line}" for verb, line in VERBS.items())
    return (
        "usage: ruac VERB ...\n\nSegment Anything 2 that says, per pixel, where its mask is wrong.\n\n"
        f"{verbs}\n\nruac VERB --help says more.\n"
        "example:\n  ruac predict photo.jpg --point 120 80 --out overlay.png"
    )
