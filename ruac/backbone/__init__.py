"""SAM 2 backbones behind one interface."""

from ruac.backbone.backbone import Backbone, MemoryBlocks
from ruac.backbone.load import BackboneConfig, backbone_config, build_backbone, checkpoint_path, load_backbone
from ruac.backbone.outputs import Decoded, Features

__all__ = [
    "Backbone",
    "BackboneConfig",
    "Decoded",
    "Features",
    "MemoryBlocks",
    "backbone_config",
    "build_backbone",
    "checkpoint_path",
    "load_backbone",
]
