"""The official models have exactly the tensors of the published checkpoints, at every image size."""

import functools
import gzip
import json
from pathlib import Path

import pytest
import torch

from ruac.backbone.checkpoint import identify
from ruac.backbone.names import OFFICIAL
from ruac.backbone.sam2_parts import build_official
from ruac.base.errors import RuacError

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT.parent / "shared" / "manifests"


@pytest.fixture(scope="module")
def manifests() -> dict[str, dict[str, list[int]]]:
    """size -> tensor name -> shape, from the published checkpoints."""
    with gzip.open(ROOT / "tests" / "fixtures" / "sam2_1_manifests.json.gz") as stream:
        return json.load(stream)


@pytest.fixture
def on_meta(monkeypatch):
    """Build without memory or initialisation; the trunk reads a linspace, which must stay real."""
    monkeypatch.setattr(torch, "linspace", functools.partial(torch.linspace, device="cpu"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with torch.device("meta"):
        yield


@pytest.mark.parametrize("size", OFFICIAL)
def test_names_and_shapes_are_those_of_the_checkpoint(size, manifests, on_meta):
    model = build_official(size)
    assert {name: list(tensor.shape) for name, tensor in model.state_dict().items()} == manifests[size]
    assert {name for name, _ in [*model.named_parameters(), *model.named_buffers()]} == set(manifests[size])
    assert identify(manifests[size]) == size


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="needs ../shared/manifests")
@pytest.mark.parametrize("size", OFFICIAL)
def test_fixture_equals_the_published_manifest(size, manifests):
    assert json.loads((PUBLISHED / f"sam2.1_hiera_{size}.json").read_text()) == manifests[size]


def test_models_of_other_kinds_are_not_identified():
    assert identify({}) is None
    assert identify({"image_encoder.trunk.patch_embed.proj.weight": ()}) is None
    assert identify({"image_encoder.trunk.patch_embed.proj.weight": (96, 3, 7, 7)}) is None


def test_state_loads_at_every_image_size_and_both_frames_are_segmented():
    torch.manual_seed(0)
    state = build_official("tiny").state_dict()
    for side in (64, 96, 256):
        model = build_official("tiny", image_size=side)
        model.load_state_dict(state)
        click = {"point_coords": torch.tensor([[[side / 2, side / 3]]]), "point_labels": torch.ones(1, 1).int()}
        with torch.no_grad():
            features = model.forward_image(torch.randn(1, 3, side, side))
            _, maps, positions, sizes = model._prepare_backbone_features(features)
            memory = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
            for frame, points in enumerate([click, None]):  # the second frame goes through memory attention
                output = model.track_step(
                    frame_idx=frame,
                    is_init_cond_frame=frame == 0,
                    current_vision_feats=maps,
                    current_vision_pos_embeds=positions,
                    feat_sizes=sizes,
                    point_inputs=points,
                    mask_inputs=None,
                    output_dict=memory,
                    num_frames=2,
                )
                memory["cond_frame_outputs"][frame] = output
                assert output["pred_masks"].shape == (1, 1, side // 4, side // 4)
                assert output["pred_masks_high_res"].shape == (1, 1, side, side)


def test_defaults_are_plain(on_meta):
    model = build_official("tiny")
    assert not model.training
    assert model.image_size == 1024
    assert not model.sam_mask_decoder.dynamic_multimask_via_stability
    assert not model.image_encoder.neck.position_encoding.cache


@pytest.mark.parametrize("side", [0, -32, 100, 1023])
def test_impossible_image_sizes_are_refused(side):
    with pytest.raises(RuacError, match=f"image_size {side}: expected a positive multiple of 32"):
        build_official("tiny", image_size=side)


def test_unknown_size_is_refused():
    with pytest.raises(RuacError, match=r"'huge': expected one of tiny, small, base_plus, large"):
        build_official("huge")
