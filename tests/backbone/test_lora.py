"""LoRA changes nothing at first, only its targets later, and merges into weights of the old names."""

import sys

import pytest
import torch

from ruac.backbone import Backbone
from ruac.backbone.lora import LoraConfig, add_lora, merge_lora
from ruac.backbone.nano import Nano
from ruac.base.errors import RuacError

SIDE = 64


@pytest.fixture(params=["mobilenet_v2", "hiera"])
def trunk(request):
    return request.param


def make(trunk):
    torch.manual_seed(1)
    nano = Nano(image_size=SIDE, width=64, mlp=64, trunk=trunk)
    if trunk == "mobilenet_v2":  # random maps fade on their way down
        with torch.no_grad():
            for level, gain in zip(nano.image_encoder.neck.convs, (1e6, 1e6, 3e4, 3e3), strict=True):
                level.conv.weight *= gain
    return Backbone(nano, name="nano").freeze()


def encode(backbone):
    features = backbone.encode(torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)))
    return torch.cat([features.embedding.flatten(), *(level.flatten() for level in features.high_res)])


def test_nothing_changes_at_first_and_merging_keeps_what_was_learned(trunk):
    backbone = make(trunk)
    names, plain = list(backbone.state_dict()), encode(backbone)
    adapters = add_lora(backbone, LoraConfig(rank=4))
    assert torch.equal(encode(backbone), plain)
    assert {id(p) for p in adapters.parameters()} == {id(p) for p in backbone.parameters() if p.requires_grad}

    encode(backbone).square().mean().backward()
    assert sum((p.grad != 0).any() for p in adapters.parameters()) == len(adapters)  # B is 0 and hides A at first
    with torch.no_grad():
        for parameter in adapters.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    unmerged = encode(backbone).detach()
    difference = (unmerged - plain).abs().max()
    assert difference > 1e-2
    merge_lora(backbone)
    assert list(backbone.state_dict()) == names
    assert (encode(backbone) - unmerged).abs().max() < 1e-4 * difference
    merge_lora(backbone)  # nothing is left to merge
    assert (encode(backbone) - unmerged).abs().max() < 1e-4 * difference


def test_targets_and_sizes(trunk):
    backbone = make(trunk)
    adapters = add_lora(backbone, LoraConfig(rank=3, alpha=6))
    layers = dict(backbone.sam.image_encoder.trunk.named_modules())
    for name, (down, up) in zip(adapters, adapters.values(), strict=True):
        layer = layers[name.replace("/", ".")]
        assert layer.base_layer.weight.shape[:2] == (up.weight.shape[0], down.weight.shape[1])
        assert down.weight.shape[0] == up.weight.shape[1] == 3
        assert layer.scaling["default"] == 2
    ends = {name.rsplit("/", 2)[-1] for name in adapters}
    assert len(adapters) == {"hiera": 14, "mobilenet_v2": 33}[trunk]
    assert ends == {"qkv", "proj"} if trunk == "hiera" else all(end.isdigit() or end == "conv" for end in ends)


def test_without_peft_the_way_to_get_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(RuacError, match=r"pip install 'ruac\[controls\]'"):
        add_lora(make("mobilenet_v2"), LoraConfig(rank=1))
