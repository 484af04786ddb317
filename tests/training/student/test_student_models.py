"""Every kind of segmenter: shapes, the cut in the middle, what is refused."""

import pytest
import torch
from safetensors.torch import save_file

from ruac.base.config import load_config
from ruac.base.errors import RuacError
from ruac.training.student.models import (
    DeepLabConfig,
    LrasppConfig,
    MobileNetConfig,
    SegformerConfig,
    build_segmenter,
)
from ruac.training.student.run import StudentConfig

SMALL = SegformerConfig(widths=[8, 16, 16, 16], depths=[1, 1, 1, 1], width=8)


@pytest.mark.parametrize(
    "config", [MobileNetConfig(width=8), LrasppConfig(), DeepLabConfig(), SMALL], ids=lambda c: c.kind
)
def test_every_kind_answers_at_the_size_of_the_picture(config):
    if config.kind == "segformer":
        pytest.importorskip("transformers", reason="the extra transformers")
    model = build_segmenter(config, 5)
    images = torch.randn(2, 3, 64, 64)
    logits = model(images)
    assert logits.shape == (2, 5, 64, 64)
    model.eval()
    maps = model.encode(images)
    assert all(m.ndim == 4 and len(m) == 2 for m in maps)
    assert torch.equal(model.decode(maps, 64), model(images))
    assert not torch.allclose(model.decode([m * 0 for m in maps], 64), model(images))  # nothing goes around them
    assert all(p.requires_grad for p in model.parameters())
    logits.sum().backward()
    assert sum(p.grad is None for p in model.trunk.parameters()) <= 0.1 * len(list(model.trunk.parameters()))


def test_the_trunk_takes_imagenet_weights(tmp_path):
    from torchvision.models import mobilenet_v2

    weights = {k: v for k, v in mobilenet_v2(weights=None).state_dict().items() if "num_batches" not in k}
    save_file(weights, tmp_path / "trunk.safetensors")
    config = MobileNetConfig(trunk_weights=str(tmp_path / "trunk.safetensors"), width=8)
    one, other = (build_segmenter(config, 3) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.trunk.parameters(), other.trunk.parameters(), strict=True))


def test_pretrained_is_what_the_library_saved(tmp_path):
    transformers = pytest.importorskip("transformers", reason="the extra transformers")
    sizes = {"hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 1, 1], "decoder_hidden_size": 8}
    saved = transformers.SegformerForSemanticSegmentation(transformers.SegformerConfig(num_labels=7, **sizes))
    saved.save_pretrained(tmp_path / "mit")
    model = build_segmenter(SegformerConfig(pretrained=str(tmp_path / "mit")), 3)
    own, known = model.trunk.state_dict(), saved.segformer.state_dict()
    assert len(own) == len(known)
    assert all(torch.equal(own[f"trunk.{name}"], value) for name, value in known.items())
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 3, 32, 32)  # seven classes became three


@pytest.mark.parametrize(
    "config", [LrasppConfig(pretrained=True), DeepLabConfig(pretrained=True)], ids=lambda c: c.kind
)
def test_pretrained_is_torchvisions_trunk(config, monkeypatch):
    from torchvision.models import MobileNet_V3_Large_Weights, mobilenet_v3_large
    from torchvision.models._api import WeightsEnum

    weights, asked = mobilenet_v3_large().state_dict(), []
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda self, *_, **__: asked.append(self) or weights)
    trunk = build_segmenter(config, 3).trunk.trunk.state_dict()
    assert [weight.url for weight in asked] == [MobileNet_V3_Large_Weights.DEFAULT.url]
    assert len(trunk) > 100
    assert all(torch.equal(value, weights[f"features.{name}"]) for name, value in trunk.items())


def test_weights_that_are_not_there_are_one_error(tmp_path):
    pytest.importorskip("transformers", reason="the extra transformers")
    (tmp_path / "nowhere").mkdir()
    with pytest.raises(RuacError, match=r"model\.pretrained: cannot be loaded: .*nowhere"):
        build_segmenter(SegformerConfig(pretrained=str(tmp_path / "nowhere")), 3)
    config = MobileNetConfig(trunk_weights=str(tmp_path / "nowhere"))
    with pytest.raises(RuacError, match="nowhere"):
        build_segmenter(config, 3)


def test_the_kind_says_which_keys_there_are():
    config = load_config(StudentConfig, None, ["source=x", "model.kind=segformer", "model.depths=[1,1,2,1]"])
    assert config.model.depths == [1, 1, 2, 1]
    with pytest.raises(RuacError, match=r"model\.trunk_weights' belongs to kind mobilenet_v2"):
        load_config(StudentConfig, None, ["source=x", "model.kind=segformer", "model.trunk_weights=y"])
    with pytest.raises(RuacError, match="did you mean 'deeplabv3'"):
        load_config(StudentConfig, None, ["source=x", "model.kind=deeplab"])
    with pytest.raises(RuacError, match=r"engine\.batch_size: 1, expected at least 2: deeplabv3"):
        load_config(StudentConfig, None, ["source=x", "model.kind=deeplabv3", "engine.batch_size=1"])
