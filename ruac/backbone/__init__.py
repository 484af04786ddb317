"""SAM 2 backbones behind one interface."""

from ruac.backbone.backbone import Backbone, MemoryBlocks
from ruac.backbone.outputs import Decoded, Features

__all__ = ["Backbone", "Decoded", "Features", "MemoryBlocks"]
