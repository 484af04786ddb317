"""Make a torchvision wheel built for CUDA importable beside a CPU build of torch.

Such a pair has no compiled operators, and torchvision then fails at import while it registers
a fake kernel for an operator whose schema nobody defined. Defining the two schemas is enough
for everything used here (transforms, models, focal loss); calling the operators would still
fail. Done only after the real import failed with exactly that message, so that a healthy
installation is never touched.
"""

import importlib
import sys

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_library = None  # keeps the definitions alive


def ensure_torchvision() -> None:
    """Import torchvision, defining the missing operator schemas if that is what it lacks."""
    global _library
    try:
        import torchvision  # noqa: F401
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise
        for name in [m for m in sys.modules if m.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        _library = torch.library.Library("torchvision", "DEF")
        for schema in _SCHEMAS:
            _library.define(schema)
        importlib.import_module("torchvision")
