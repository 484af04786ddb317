"""The model card of an export: ``README.md`` with the metadata that a hub sorts and searches by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from ruac.backbone.load import backbone_name
from ruac.base.version import VERSION
from ruac.inference.ensemble import EnsembleConfig
from ruac.inference.export_config import ExportConfig

CARD = "README.md"
_HUB_SIZES = {"tiny": "tiny", "small": "small", "base_plus": "base-plus", "large": "large"}
_UNSTATED = {"license": "other", "license_name": "not-stated"}


def model_card(config: ExportConfig, metadata: Mapping[str, Any] | None = None) -> str:
    """Markdown under a YAML header. metadata: keys of the header beside or in place of the usual.

    The licence of weights is that of what they were made from, which nobody but their maker knows: unless `metadata`
    states one, the card says that none is stated.
    """
    given = dict(metadata or {})
    header = {
        **({} if "license" in given else _UNSTATED),
        "library_name": "ruac",
        "pipeline_tag": "mask-generation",
        "tags": ["segment-anything", "sam2", "image-segmentation", "uncertainty-quantification", "calibration"],
    }
    if config.backbone.kind in _HUB_SIZES:
        header["base_model"] = f"facebook/sam2.1-hiera-{_HUB_SIZES[config.backbone.kind]}"
    header |= given
    return f"---\n{yaml.safe_dump(header, sort_keys=False)}---\n\n{_body(config, header)}"


def _body(config: ExportConfig, header: Mapping[str, Any]) -> str:
    backbone, head = config.backbone, config.head
    if isinstance(head, EnsembleConfig):
        said = f"an ensemble of {head.jitters} moved prompts and {len(head.flips)} flips"
    else:
        said = "no head" if head.posterior == "none" else f"a `{head.posterior}` head"
    rows = {
        "backbone": f"`{backbone_name(backbone) or backbone.kind}`, {backbone.image_size} px, "
        + ("included" if config.backbone_included else "not included: fetch it, its mask decoder is checked by hash"),
        "uncertainty": said,
        "calibration": config.calibrator or "none",
        "looks": "none unasked" if config.looks is None else ", ".join(config.looks.looks),
        "reader of looks": "none" if config.reader is None else f"of a `{config.reader.look}` beside the first answer",
        "made by": f"ruac {VERSION}",
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    unstated = header["license"] == "other" and header.get("license_name") == _UNSTATED["license_name"]
    licence = (
        "Not stated. Weights inherit terms from the backbone and from the pictures they were trained on: state them "
        "in the header above before you publish."
        if unstated
        else f"`{header.get('license_name', header['license'])}`"
    )
    return f"""# Segment Anything 2 with uncertainty

Masks of SAM 2, and for each pixel how sure they are: 0 certain, 1 a coin toss.

| | |
|---|---|
{table}

```python
from ruac import Predictor

predictor = Predictor.from_pretrained("FOLDER_OR_HUB_ID")
predictor.set_image("photo.jpg")
answer = predictor.predict(point_coords=[[120, 80]], point_labels=[1])
answer.masks, answer.scores, answer.uncertainty
```

The folder holds numbers only, as safetensors and JSON: loading it runs no code of its own. `config.json` records how
the weights were made under `record`, and their SHA-256.

**Limits.** Uncertainty was fitted on the source pictures of `record`; under another domain it is a ranking of doubt,
not a frequency of error.

**Licence.** {licence}
"""
