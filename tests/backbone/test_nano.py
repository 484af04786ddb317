"""The embedded model: its size, its two trunks, and loading that is strict and says what is wrong."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import mobilenet_v2

from ruac.backbone import BackboneConfig, backbone_config, build_backbone, checkpoint_path, load, load_backbone
from ruac.backbone.backbone import Backbone
from ruac.backbone.mobilenet import STAGE_ENDS, MobileNetV2Trunk, load_imagenet_trunk
from ruac.backbone.names import OFFICIAL
from ruac.backbone.nano import TRUNKS, Nano, load_nano
from ruac.backbone.prompts import Prompts
from ruac.base.errors import RuacError


@pytest.fixture
def mobilenet():
    """torchvision's network in eval mode with random statistics, as after a training."""
    network = mobilenet_v2(weights=None)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.5, 0.5)
            nn.init.uniform_(layer.running_var, 0.5, 2.0)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.5, 0.5)
    return network.eval()


@pytest.fixture
def save(tmp_path):
    def save(tensors):
        path = tmp_path / "weights.safetensors"
        save_file(tensors, path)
        return path

    return save


@torch.no_grad()
@pytest.mark.parametrize("trunk", TRUNKS)
def test_both_trunks_at_every_size(trunk):
    state = None
    for side in (64, 128, 256):
        sam = Nano(image_size=side, trunk=trunk)
        assert sum(p.numel() for p in sam.parameters()) <= 8e6
        if state is not None:  # nothing depends on the size
            sam.load_state_dict(state)
        state = sam.state_dict()
        backbone = Backbone(sam, name="nano").freeze()
        features = backbone.encode(torch.randn(2, 3, side, side))
        assert features.embedding.shape == (2, 256, side // 16, side // 16)
        given = Prompts(torch.full((2, 1, 2), side / 2), torch.ones(2, 1, dtype=torch.int64))
        decoded = backbone.decode(features, given)
        assert decoded.logits.shape == (2, 4, side // 4, side // 4)
        assert decoded.mask_tokens.shape == (2, 4, 256)
        assert decoded.logits.isfinite().all()


def test_an_unknown_trunk_is_refused():
    with pytest.raises(RuacError, match=r"nano trunk 'resnet': expected one of mobilenet_v2, hiera"):
        Nano(trunk="resnet")


@torch.no_grad()
def test_attention_starts_at_its_own_place(nano):
    """Position codes of the cells, as queries and keys of each cross-attention: each finds itself."""
    codes = nano.sam.sam_prompt_encoder.get_dense_pe().flatten(2)[0].T  # [16, 256]
    transformer = nano.sam.sam_mask_decoder.transformer
    crossed = [transformer.final_attn_token_to_image]
    for layer in transformer.layers:
        crossed += [layer.cross_attn_token_to_image, layer.cross_attn_image_to_token]
    for attention in crossed:
        found = (attention.q_proj(codes) @ attention.k_proj(codes).T).argmax(dim=1)
        assert (found == torch.arange(16)).float().mean() > 0.9


@torch.no_grad()
def test_folding_keeps_what_torchvision_computes(mobilenet, save):
    trunk = MobileNetV2Trunk()
    state = {k: v for k, v in mobilenet.state_dict().items() if k.startswith("features.") and "num_batches" not in k}
    load_imagenet_trunk(trunk, save(state))
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in trunk.modules())
    x = expected = torch.randn(2, 3, 64, 64)
    maps = iter(trunk(x))
    channels = []
    for index, block in enumerate(mobilenet.features[: STAGE_ENDS[-1] + 1]):
        expected = block(expected)
        if index in STAGE_ENDS:
            torch.testing.assert_close(next(maps), expected, rtol=1e-3, atol=1e-4)
            channels.append(expected.shape[1])
    assert channels == trunk.channel_list[::-1]
    assert next(maps, None) is None
    trunk.train()
    torch.testing.assert_close(trunk(x)[-1], expected, rtol=1e-3, atol=1e-4)  # nothing depends on the mode


def test_bad_imagenet_files_are_named(mobilenet, save, tmp_path):
    trunk = MobileNetV2Trunk()
    state = dict(mobilenet.state_dict())
    lost = state.pop("features.17.conv.3.running_var")
    with pytest.raises(RuacError, match=r"1 tensors missing, first features\.17\.conv\.3\.running_var"):
        load_imagenet_trunk(trunk, save(state))
    with pytest.raises(RuacError, match=r"weights\.safetensors: not a MobileNetV2 trunk: .*size mismatch"):
        load_imagenet_trunk(trunk, save(state | {"features.17.conv.3.running_var": lost[:7].clone()}))
    with pytest.raises(RuacError, match=r"absent\.safetensors: cannot be read"):
        load_imagenet_trunk(trunk, tmp_path / "absent.safetensors")


def test_the_real_trunk_loads(shared_data):
    path = shared_data.parent / "weights" / "mobilenet_v2_imagenet.safetensors"
    if not path.is_file():
        pytest.skip("needs ../shared/weights")
    trunk = MobileNetV2Trunk()
    load_imagenet_trunk(trunk, path)
    assert all(m.isfinite().all() for m in trunk(torch.randn(1, 3, 64, 64)))


def test_nano_weights_from_both_kinds_of_file(make_nano, save, tmp_path):
    source = make_nano().sam
    torch.save({"step": 3, "modules": {"backbone": source.state_dict()}}, tmp_path / "last.pt")
    half = {name: tensor.half() for name, tensor in source.state_dict().items()}
    for path, rounded in ((tmp_path / "last.pt", False), (save(half), True)):
        fresh = Nano(image_size=64)
        load_nano(fresh, path)
        for name, tensor in fresh.state_dict().items():
            assert tensor.dtype == torch.float32
            assert torch.equal(tensor, half[name].float() if rounded else source.state_dict()[name])


def test_nano_weights_that_do_not_fit_are_named(make_nano, save, tmp_path):
    fresh, state = Nano(image_size=64), make_nano().sam.state_dict()
    name = "sam_mask_decoder.iou_token.weight"

    def refused(path):
        with pytest.raises(RuacError) as info:
            load_nano(fresh, path)
        message = str(info.value)
        assert message.startswith(f"{path}: ")
        assert "\n" not in message
        return message

    assert f'Missing key(s) in state_dict: "{name}"' in refused(save({k: v for k, v in state.items() if k != name}))
    assert 'Unexpected key(s) in state_dict: "extra"' in refused(save(state | {"extra": torch.zeros(1)}))
    assert f"size mismatch for {name}" in refused(save(state | {name: torch.zeros(1, 8)}))
    assert "not found" in refused(tmp_path / "absent.safetensors")
    assert "not found" in refused(tmp_path / "absent.pt")
    (tmp_path / "text.safetensors").write_text("<html>")
    (tmp_path / "text.pt").write_text("<html>")
    torch.save({"modules": {}}, tmp_path / "other.pt")
    for file in ("text.safetensors", "text.pt", "other.pt"):
        assert "not weights of this nano" in refused(tmp_path / file)


def test_a_backbone_by_yaml(make_nano, save, tmp_path):
    state = make_nano().sam.state_dict()
    config = tmp_path / "own.yaml"
    config.write_text(f"kind: nano\ncheckpoint: {save(state)}\nimage_size: 64\n")
    before = torch.random.get_rng_state()
    backbone = load_backbone(str(config))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert (backbone.name, backbone.image_size, backbone.training) == ("nano", 64, False)
    assert not any(p.requires_grad for p in backbone.parameters())
    assert all(torch.equal(tensor, state[name]) for name, tensor in backbone.sam.state_dict().items())


def test_relative_checkpoints_are_looked_up_in_both_folders(tmp_path, monkeypatch):
    project, here = tmp_path / "project", tmp_path / "here"
    for folder in (project, here):
        folder.mkdir()
    monkeypatch.setattr(load, "ROOT", project)
    monkeypatch.chdir(here)
    config = BackboneConfig(checkpoint="w.safetensors")
    (project / "w.safetensors").touch()
    assert checkpoint_path(config) == project / "w.safetensors"
    (here / "w.safetensors").touch()
    assert checkpoint_path(config).resolve() == here / "w.safetensors"


@pytest.mark.parametrize("kind", ["nano", *OFFICIAL])
def test_every_name_has_its_config(kind):
    config = backbone_config(kind)
    assert config.kind == kind
    assert config.image_size == (256 if kind == "nano" else 1024)
    if kind != "nano":
        assert config.checkpoint == f"checkpoints/{OFFICIAL[kind].file}"


def test_a_second_checkpoint_of_one_kind_has_a_name_of_its_own():
    config = backbone_config("nano_scale")
    assert (config.kind, config.checkpoint) == ("nano", "checkpoints/nano_scale.safetensors")
    assert checkpoint_path(config).is_file()


def test_unknown_backbones_are_refused(tmp_path):
    with pytest.raises(
        RuacError, match=r"backbone 'nano_scal': expected .* or .* YAML file; did you mean 'nano_scale'\?"
    ):
        load_backbone("nano_scal")
    with pytest.raises(RuacError, match=r"absent\.yaml: config file not found"):
        load_backbone(str(tmp_path / "absent.yaml"))
    (tmp_path / "own.yaml").write_text("kind: giant\n")
    with pytest.raises(RuacError, match="backbone kind 'giant'"):
        load_backbone(str(tmp_path / "own.yaml"))
    with pytest.raises(RuacError, match="image_size 100"):
        build_backbone(BackboneConfig(image_size=100))


@pytest.mark.parametrize("kind", OFFICIAL)
def test_a_missing_checkpoint_says_how_to_get_it(kind):
    with pytest.raises(RuacError) as info:
        load_backbone(BackboneConfig(kind, f"nowhere/{kind}.pt", 64))
    assert str(info.value).startswith(f"nowhere/{kind}.pt: ")
    assert str(info.value).endswith(f"fetch it with: ruac fetch-checkpoint {kind}")
