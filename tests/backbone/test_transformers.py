"""SAM 2 under the names of the transformers library: every tensor both ways, and equal outputs."""

import pytest
import torch
from safetensors.torch import save_file

from ruac.backbone import Backbone, BackboneConfig, build_backbone, load_backbone
from ruac.backbone.prompts import Prompts
from ruac.backbone.transformers_names import from_transformers, to_transformers
from ruac.base.errors import RuacError
from ruac.inference.export import export_model, load_exported
from ruac.inference.model import UncertainSam
from ruac.inference.predictor import Predictor
from ruac.inference.video import VideoPredictor

transformers = pytest.importorskip("transformers", minversion="4.56", reason="an extra")

from ruac.backbone.transformers_model import backbone_from_transformers, backbone_to_transformers  # noqa: E402

SIDE = 128


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    body = build_backbone(BackboneConfig(kind="tiny", image_size=SIDE)).freeze()
    for name, tensor in body.sam.state_dict().items():  # constants at their start would hide what is swapped
        if tensor.unique().numel() == 1:
            tensor += 0.02 * torch.randn(tensor.shape)
        assert tensor.isfinite().all(), name
    return body


@pytest.fixture(scope="module")
def video():
    """Of that library, with its own random weights."""
    torch.manual_seed(1)
    model = transformers.Sam2VideoModel(transformers.Sam2VideoConfig()).eval()
    matrix = model.shared_image_embedding.positional_embedding
    model.prompt_encoder.shared_embedding.positional_embedding.copy_(matrix)  # drawn twice
    return model


@torch.no_grad()
def answers(body, images, points, labels):
    features = body.encode(images)
    decoded = body.decode(features.gather(torch.zeros(len(points), dtype=torch.int64)), Prompts(points, labels))
    return decoded.logits, decoded.iou, decoded.object_score


PROMPTS = torch.tensor([[[30.0, 40.0], [90.0, 100.0]], [[64.0, 10.0], [5.0, 5.0]]]), torch.tensor([[1, 0], [2, 3]])


def test_every_name_and_number_goes_both_ways(tiny, video):
    ours, theirs = tiny.sam.state_dict(), video.state_dict()
    renamed = to_transformers(ours)
    assert {name: t.shape for name, t in renamed.items()} == {name: t.shape for name, t in theirs.items()}
    back = from_transformers(renamed)
    assert back.keys() == ours.keys()
    assert all(torch.equal(back[name], ours[name]) for name in ours)


def test_outputs_are_equal(tiny):
    images = torch.randn(1, 3, SIDE, SIDE)
    points, labels = PROMPTS
    model = backbone_to_transformers(tiny)
    assert model.config.vision_config.backbone_config.blocks_per_stage == [1, 2, 7, 2]
    for several, tokens in ((True, slice(1, None)), (False, slice(1))):
        theirs = model(images, points[None], labels[None], multimask_output=several)
        logits, iou, score = answers(tiny, images, points, labels)
        torch.testing.assert_close(theirs.pred_masks[0], logits[:, tokens], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(theirs.iou_scores[0], iou[:, tokens], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(theirs.object_score_logits[0], score, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", ["small", "base_plus", "large"])
@pytest.mark.slow
def test_outputs_of_the_other_sizes_are_equal(size):
    body = build_backbone(BackboneConfig(kind=size, image_size=SIDE)).freeze()
    images, (points, labels) = torch.randn(1, 3, SIDE, SIDE), PROMPTS
    theirs = backbone_to_transformers(body)(images, points[None], labels[None], multimask_output=True)
    torch.testing.assert_close(
        theirs.pred_masks[0], answers(body, images, points, labels)[0][:, 1:], atol=1e-4, rtol=1e-4
    )


def test_a_model_for_pictures_comes_back_without_a_memory(tiny, tmp_path):
    model = backbone_to_transformers(tiny)
    model.save_pretrained(tmp_path / "theirs")
    loaded = transformers.Sam2Model.from_pretrained(tmp_path / "theirs").eval()
    images = torch.randn(1, 3, SIDE, SIDE)
    file = BackboneConfig("tiny", str(tmp_path / "theirs" / "model.safetensors"), SIDE)
    export = export_model(
        UncertainSam(backbone_from_transformers(loaded), None), file, tmp_path / "ours", with_backbone=True
    )
    bodies = backbone_from_transformers(loaded), load_backbone(file), load_exported(export).backbone
    for body in bodies:
        assert (body.name, body.image_size, body.memory_blocks()) == ("tiny", SIDE, None)
        assert not VideoPredictor(Predictor(UncertainSam(body, None), device="cpu")).has_memory
        for one, other in zip(answers(body, images, *PROMPTS), answers(tiny, images, *PROMPTS), strict=True):
            torch.testing.assert_close(one, other, atol=0, rtol=0)


def test_a_model_for_videos_brings_its_memory(video, tmp_path):
    body = backbone_from_transformers(video)
    assert body.image_size == 1024
    assert body.memory_blocks() is not None
    renamed, theirs = to_transformers(body.sam.state_dict()), video.state_dict()
    assert all(torch.equal(renamed[name], tensor) for name, tensor in theirs.items())
    save_file(theirs, tmp_path / "model.safetensors")
    loaded = load_backbone(BackboneConfig("tiny", str(tmp_path / "model.safetensors"), 64))
    for name, tensor in loaded.sam.state_dict().items():
        assert torch.equal(tensor, body.sam.state_dict()[name]), name


def test_what_is_not_complete_is_named(tiny, nano, tmp_path):
    state = to_transformers(tiny.sam.state_dict())
    path = tmp_path / "model.safetensors"

    def refused(change):
        save_file({name: tensor.clone() for name, tensor in (state | change).items() if tensor is not None}, path)
        with pytest.raises(RuacError) as info:
            load_backbone(BackboneConfig("tiny", str(path), SIDE))
        return str(info.value)

    assert refused({"mask_decoder.iou_token.weight": None}).endswith("1 missing (sam_mask_decoder.iou_token.weight)")
    assert "without prompt_encoder.point_embed.weight" in refused({"prompt_encoder.point_embed.weight": None})
    other = {"shared_image_embedding.positional_embedding": torch.zeros(2, 128)}
    assert "expected one position code" in refused(other)
    with pytest.raises(RuacError, match="backbone nano: expected one of tiny"):
        backbone_to_transformers(Backbone(nano.sam, name="nano"))
