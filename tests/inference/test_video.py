"""Objects through a video: SAM 2's own masks where it has a memory, and what is said of every frame."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr
from torch import nn

from ruac.backbone import BackboneConfig, Decoded, build_backbone
from ruac.backbone.prompts import Prompts
from ruac.backbone.recorder import recorded
from ruac.backbone.sam2_parts import video_predictor
from ruac.base.errors import RuacError
from ruac.data.open import open_dataset
from ruac.inference.expected_iou import joint_iou
from ruac.inference.model import UncertainSam
from ruac.inference.predictor import Predictor
from ruac.inference.video import VideoFrame, VideoPredictor, VideoReview
from ruac.uncertainty import BayesianConfig, BayesianHead

HEIGHT, WIDTH, SIDE = 60, 90, 18


def clip(count=6, step=7):
    """A bright square that moves to the right over noise."""
    rng, frames, truth = np.random.default_rng(0), [], []
    for number in range(count):
        frame = rng.integers(20, 60, (HEIGHT, WIDTH, 3)).astype(np.uint8)
        mask = np.zeros((HEIGHT, WIDTH), bool)
        mask[20 : 20 + SIDE, 6 + step * number : 6 + step * number + SIDE] = True
        frame[mask] = (220, 180, 60)
        frames.append(frame)
        truth.append(mask)
    return frames, np.stack(truth)


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    body = build_backbone(BackboneConfig(kind="tiny", image_size=128)).freeze()
    body.sam.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.data.fill_(3.0)  # random weights see no object
    head = BayesianHead(BayesianConfig(logit_scale=True), token_dim=body.token_dim, channels=body.channels)
    return UncertainSam(body, head.requires_grad_(False)).eval()


def test_the_masks_are_those_of_sam2s_own_video_predictor(tiny, tmp_path):
    frames, _ = clip(4)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"{number}.jpg", format="PNG")
    theirs = video_predictor(tiny.backbone.sam)
    state = theirs.init_state(str(tmp_path))
    theirs.add_new_points_or_box(state, 0, 1, points=np.array([[15.0, 28.0]]), labels=np.array([1]))
    theirs.add_new_points_or_box(state, 0, 2, box=np.array([5.0, 5.0, 60.0, 50.0]))
    theirs.add_new_points_or_box(state, 2, 2, points=np.array([[30.0, 30.0], [3.0, 3.0]]), labels=np.array([1, 0]))
    expected = {number: logits[:, 0].numpy() for number, _, logits in theirs.propagate_in_video(state)}

    ours = VideoPredictor(Predictor(tiny, device="cpu"))
    assert ours.has_memory
    ours.set_video(frames)
    ours.add_prompt(0, 1, point_coords=[[15, 28]], point_labels=[1])
    ours.add_prompt(0, 2, box=[5, 5, 60, 50])
    ours.add_prompt(2, 2, point_coords=[[30, 30], [3, 3]], point_labels=[1, 0])
    found = list(ours.propagate())
    assert [frame.frame for frame in found] == sorted(expected) == [0, 1, 2, 3]
    for frame in found:
        assert frame.object_ids == [1, 2]
        assert frame.masks.any()
        assert (frame.masks == (expected[frame.frame] > 0)).mean() > 0.9999
        assert frame.probability.shape == frame.uncertainty.shape == (2, HEIGHT, WIDTH)
        assert (frame.presence > 0.5).all()
        np.testing.assert_allclose(frame.doubt, 1 - joint_iou(frame.masks, frame.probability), atol=1e-6)


def test_an_absent_object_has_no_mask_and_all_the_doubt(tiny):
    head = tiny.backbone.sam.sam_mask_decoder.pred_obj_score_head.layers[-1]
    head.bias.data -= 6
    try:
        video = VideoPredictor(Predictor(tiny, device="cpu"))
        video.set_video(clip(2)[0])
        video.add_prompt(0, 7, box=[5, 5, 60, 50])
        for frame in video.propagate():
            assert frame.object_ids == [7]
            assert not frame.masks.any()
            assert frame.presence[0] < 0.5
            assert frame.doubt[0] == 1
    finally:
        head.bias.data += 6


def test_a_recorded_pass_is_the_pass(tiny):
    features = tiny.backbone.encode(torch.randn(1, 3, 128, 128))
    encoder, decoder = tiny.backbone.sam.sam_prompt_encoder, tiny.backbone.sam.sam_mask_decoder
    points = (torch.tensor([[[50.0, 60.0]]]), torch.tensor([[1]]))
    sparse, dense = encoder(points=points, boxes=None, masks=None)
    with recorded(decoder) as passes:
        masks, scores, _, presence = decoder(
            image_embeddings=features.embedding,
            image_pe=encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
            repeat_image=False,
            high_res_features=features.high_res,
        )
    ((decoded, count),) = passes
    ours = tiny.backbone.decode(features, Prompts(*points))
    assert count == 3
    torch.testing.assert_close(decoded.logits[:, 1:], masks)
    torch.testing.assert_close(decoded.iou[:, 1:], scores)
    torch.testing.assert_close(decoded.object_score, presence)
    for name in ("logits", "iou", "mask_tokens", "pixel_tokens", "mask_weights", "object_score"):
        torch.testing.assert_close(getattr(decoded, name), getattr(ours, name))


class Bright(nn.Module):
    """A backbone without memory: its mask is what is bright and connected within the box, or in the whole picture."""

    image_size, mask_stride, boxes_only = 128, 4, False
    sam = None

    def frame(self, size):
        return 128, 128

    def encode(self, images):
        return images

    def decode(self, images, prompts):
        bright = (images.mean(dim=1)[:, 2::4, 2::4] > 0.5).float()  # [1, 32, 32]
        if (prompts.labels == 2).any():
            window = torch.zeros_like(bright)
            (left, top), (right, bottom) = (prompts.points[0, :2] / 4).round().int().tolist()
            window[:, top:bottom, left:right] = 1
            bright = bright * window
        logits = (bright * 16 - 8)[:, None].expand(1, 4, 32, 32)
        score = torch.full((1, 4), 0.9)
        return Decoded(logits, score, torch.ones(1, 1), *(torch.zeros(0) for _ in range(3)))


@pytest.fixture
def bright():
    model = UncertainSam.__new__(UncertainSam)
    nn.Module.__init__(model)
    model.backbone, model.head, model.filters, model.looks = Bright(), None, (), None
    model.encode = model.backbone.encode
    predictor = Predictor(model, device="cpu")
    return VideoPredictor(predictor)


def test_without_a_memory_a_moving_square_is_followed_until_it_leaves_its_box(bright):
    frames, truth = clip(6, step=1)
    assert not bright.has_memory
    bright.set_video(frames)
    bright.add_prompt(1, 3, box=[7, 20, 25, 38])
    found = list(bright.propagate())
    assert [frame.frame for frame in found] == [1, 2, 3, 4, 5]
    assert min(iou(frame.masks[0], truth[frame.frame]) for frame in found) > 0.6
    fast, truth = clip(5, step=30)
    bright.set_video(fast[:3])
    bright.add_prompt(0, 3, box=[6, 20, 24, 38])
    lost = list(bright.propagate())
    assert iou(lost[0].masks[0], truth[0]) > 0.6
    assert not lost[1].masks.any()
    assert lost[2].doubt[0] == 1, "what was lost stays lost, and says so"
    bright.add_prompt(2, 3, box=[66, 20, 84, 38])
    again = list(bright.propagate())
    assert iou(again[2].masks[0], truth[2]) > 0.6
    assert VideoReview().extend(again).to_prompt() == [(1, 3)]


def frame_of(number, doubts):
    doubt = np.array(list(doubts.values()))
    return VideoFrame(number, list(doubts), *[None] * 5, doubt)


def test_the_worst_frame_of_every_doubted_run_is_flagged():
    first, second = [0.1, 0.5, 0.7, 0.2, 0.4, 0.4, 0.1], [0.0, 0.0, 0.9, 0.9, 0.0, 0.0, 0.45]
    review = VideoReview().extend(
        frame_of(number, {1: a, 2: b}) for number, (a, b) in enumerate(zip(first, second, strict=True))
    )
    assert review.to_prompt() == [(2, 2), (2, 1), (6, 2), (4, 1)]
    assert review.mean_doubt() == pytest.approx({1: np.mean(first), 2: np.mean(second)})
    assert VideoReview(threshold=0.95).extend([frame_of(0, {1: 0.9})]).to_prompt() == []


def test_nano_on_a_real_clip(shared_data):
    source = shared_data / "source"
    names = sorted(
        entry["file_name"]
        for entry in json.loads((source / "annotations.json").read_text())["images"]
        if entry["file_name"].startswith("davis__blackswan")
    )[:5]
    if not names:
        pytest.skip("the source has no frames of a DAVIS video")
    dataset = open_dataset(source)
    truth = {
        record.path.name: dataset[number].masks[0]
        for number, record in enumerate(dataset.records)
        if record.path.name in names
    }
    rows, columns = np.nonzero(truth[names[0]])
    video = VideoPredictor(Predictor(device="cpu"))
    video.set_video([source / "images" / name for name in names])
    video.add_prompt(0, 1, box=[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    found = list(video.propagate())
    j = [iou(frame.masks[0], truth[name]) for frame, name in zip(found, names, strict=True)]
    assert j[0] > 0.6
    assert np.mean(j) > 0.5
    assert all(0 < frame.doubt[0] < 1 for frame in found)


def test_doubt_rises_where_a_real_clip_is_lost(shared_data):
    source = shared_data / "source"
    dataset = open_dataset(source)
    frames = [n for n, record in enumerate(dataset.records) if record.id.startswith("davis__breakdance")]
    if not frames:
        pytest.skip("the source has no frames of that clip")
    samples = [dataset[number] for number in frames]
    rows, columns = np.nonzero(samples[0].masks[0])
    video = VideoPredictor(Predictor(device="cpu"))
    video.set_video([sample.image for sample in samples])
    video.add_prompt(0, 1, box=[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    found = list(video.propagate())
    j = [iou(frame.masks[0], sample.masks[0]) for frame, sample in zip(found, samples, strict=True)]
    assert np.ptp(j) > 0.2
    assert spearmanr([frame.doubt[0] for frame in found], j).statistic < -0.4


def test_what_cannot_be_asked(bright, tmp_path):
    with pytest.raises(RuacError, match="no video; call set_video first"):
        bright.add_prompt(0, 1, box=[1, 1, 5, 5])
    with pytest.raises(RuacError, match="expected a folder with the frames of a video"):
        bright.set_video(tmp_path)
    with pytest.raises(RuacError, match="all of one size"):
        bright.set_video([np.zeros((4, 5, 3), np.uint8), np.zeros((5, 5, 3), np.uint8)])
    with pytest.raises(RuacError, match=r"^frame 1: "):
        bright.set_video([np.zeros((4, 5, 3), np.uint8), None])
    bright.set_video(clip(3)[0])
    with pytest.raises(RuacError, match="no prompt; call add_prompt first"):
        bright.propagate()
    with pytest.raises(RuacError, match="frame 3: expected one of 0 to 2"):
        bright.add_prompt(3, 1, box=[1, 1, 5, 5])
    with pytest.raises(RuacError, match="expected one object"):
        bright.add_prompt(0, 1, box=[[1, 1, 5, 5], [2, 2, 9, 9]])
    with pytest.raises(RuacError, match="outside the 90x60 picture"):
        bright.add_prompt(0, 1, box=[1, 1, 5, 500])
