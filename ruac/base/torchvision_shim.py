"""Make a torchvision wheel built for CUDA importable beside a CPU build of torch.

Such a pair has no compiled operators, and torchvision then fails at import while it registers
a fake kernel for an operator whose schema nobody defined. Defining the two schemas is enough
for everything used here (transforms, models, focal loss); calling the operators would still
fail. Done only after the real import failed with exactly that message, so that a healthy
installation is never touched.

`watch_torchvision` mends whichever import of torchvision comes first (sam2, torchmetrics,
accelerate and kornia all do it), so that ``import ruac`` itself need not pay for torch.
"""

import importlib
import sys
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_library = None  # keeps the definitions alive


def watch_torchvision() -> None:
    """Mend torchvision when it is first imported, whoever imports it; a second call changes nothing."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def ensure_torchvision() -> None:
    """Import torchvision, defining the missing operator schemas if that is what it lacks."""
    _mended(lambda: importlib.import_module("torchvision"))


class _Finder(MetaPathFinder):
    """Finds torchvision where it is, and gives it a loader that tries twice."""

    def find_spec(self, name: str, path: object, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "torchvision":
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        untouched = dict(vars(module))

        def execute() -> None:
            vars(module).clear()  # a failed attempt leaves names behind, of modules that are dropped
            vars(module).update(untouched)
            sys.modules[module.__name__] = module
            super(_Loader, self).exec_module(module)

        _mended(execute)


def _mended(attempt: Callable[[], object]) -> None:
    """Do `attempt`; do it again with the schemas defined if they are what it failed for."""
    global _library
    try:
        attempt()
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise
        import torch

        for name in [m for m in sys.modules if m.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        _library = torch.library.Library("torchvision", "DEF")
        for schema in _SCHEMAS:
            _library.define(schema)
        attempt()
