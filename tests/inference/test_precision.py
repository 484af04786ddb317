"""Weights of half precision: refused in one line by whatever has to compute with them."""

import pytest
import torch

from ruac.base.errors import RuacError
from ruac.inference.predictor import Predictor


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_is_refused(dtype):
    predictor = Predictor(device="cpu")
    predictor.model.to(dtype)
    kind = str(dtype).removeprefix("torch.")
    with pytest.raises(RuacError, match=f"^backbone: weights are {kind}, expected float32"):
        predictor.set_image(torch.zeros(32, 32, 3, dtype=torch.uint8).numpy())
