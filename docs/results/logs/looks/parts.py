"""The shipped model without its local temperature and with shapes of 2 x 2 pixels: parts.txt.

Measured before the shipped model had the latter itself, at "LiteMedSAM's sweep config says how to look" and before.

python docs/results/logs/looks/parts.py OUT       # writes OUT/without_local and OUT/pool2, both without the reader
ruac sweep configs/sweep/domains.yaml 'reference=[SRC@val]' 'domains=[DOMAINS/retina_vessel,DOMAINS/ultrasound,DOMAINS/mri_tumor]' 'models=[{name: vanilla, backbone: nano_scale},{name: one, export: checkpoints/ruac_nano_scale},{name: without_local, export: OUT/without_local},{name: pool2, export: OUT/pool2}]' panels=0 cpu=true limit=100 out=runs/parts
"""  # noqa: E501

import sys
from pathlib import Path

from ruac.inference.export import export_model, exported_backbone, load_exported

MODEL = "checkpoints/ruac_nano_scale"

if __name__ == "__main__":
    spec, whole = exported_backbone(MODEL)
    for name in ("without_local", "pool2"):
        model = load_exported(MODEL)
        model.reader = None
        if name == "pool2":
            model.head.config.kappa_pool = 2
        else:
            model.head.local_temperature, model.head.config.local_temperature = None, False
        export_model(model, spec, Path(sys.argv[1]) / name, with_backbone=whole, record={})
