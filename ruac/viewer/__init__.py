"""A plugin for napari: clicks and boxes of its layers in, mask and doubt as layers out."""
