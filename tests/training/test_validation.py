"""Validation while training: whose numbers are called vanilla."""

import pytest
from accelerate import Accelerator
from builders import with_head

from ruac.data.open import open_dataset
from ruac.training.validation import ValidationConfig, validate


@pytest.mark.parametrize(("tuned", "alone"), [(False, "vanilla"), (True, "without_head")])
def test_a_backbone_is_vanilla_only_while_it_is_frozen(make_nano, coco_folder, tuned, alone):
    backbone = make_nano()
    backbone.sam.sam_mask_decoder.transformer.requires_grad_(tuned)
    config, dataset = ValidationConfig(images=1, clicks=1), open_dataset(coco_folder)
    values = validate(with_head(backbone), dataset, config, Accelerator(cpu=True))
    metrics = ("j", "f", "band_auroc", "band_ece", "band_nll", "band_aurc")
    assert list(values) == [f"{name}/{metric}" for name in (alone, "head") for metric in metrics]
    assert values["head/j"] == values[f"{alone}/j"] > 0  # the signed head takes its masks from the backbone
