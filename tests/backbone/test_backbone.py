"""`encode` and `decode` are SAM 2's own computation, to the last bit, and differentiable."""

import pytest
import torch

from ruac.backbone import BackboneConfig, build_backbone
from ruac.backbone.names import OFFICIAL
from ruac.backbone.outputs import as_prompt, upsample
from ruac.backbone.prompts import BOX_FIRST, BOX_SECOND, PADDING, Prompts
from ruac.backbone.sam2_parts import SAM2Base
from ruac.base.errors import RuacError
from ruac.inference.model import UncertainSam
from ruac.uncertainty import BayesianConfig, BayesianHead

SIDE = 64
KINDS = ["nano", *(pytest.param(size, marks=pytest.mark.slow if size == "large" else ()) for size in OFFICIAL)]


def images(count):
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2))


def prompts(count, *, mask=False):
    generator = torch.Generator().manual_seed(3)
    points = SIDE * torch.rand(count, 3, 2, generator=generator)
    labels = torch.tensor([BOX_FIRST, BOX_SECOND, 1]).repeat(count, 1)
    labels[1::2] = torch.tensor([1, 0, PADDING])
    return Prompts(points, labels, 8 * torch.randn(count, 1, 16, 16, generator=generator) if mask else None)


def original_features(sam, images):
    """As the package's image predictor prepares them, one image a time."""
    out = SAM2Base.forward_image(sam, images)
    _, levels, _, sizes = SAM2Base._prepare_backbone_features(sam, out)
    assert sam.directly_add_no_mem_embed
    levels[-1] = levels[-1] + sam.no_mem_embed
    maps = [level.permute(1, 2, 0).view(len(images), -1, *size) for level, size in zip(levels, sizes, strict=True)]
    return maps[-1], maps[:-1]


def original_answer(sam, embedding, high_res, prompts, *, multimask):
    sparse, dense = sam.sam_prompt_encoder(
        points=(prompts.points, prompts.labels), boxes=None, masks=prompts.mask_logits
    )
    return sam.sam_mask_decoder(
        image_embeddings=embedding,
        image_pe=sam.sam_prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=multimask,
        repeat_image=False,
        high_res_features=high_res,
    )


@pytest.fixture(scope="module", params=KINDS)
def body(request, make_nano):
    if request.param == "nano":
        backbone = make_nano()
        backbone.sam.num_feature_levels, backbone.sam.use_high_res_features_in_sam = 3, True  # read by the original
        return backbone
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return build_backbone(BackboneConfig(kind=request.param, image_size=SIDE)).freeze()


@torch.no_grad()
def test_features_masks_and_scores_are_those_of_the_package(body):
    picture = images(1)
    embedding, high_res = original_features(body.sam, picture)
    features = body.encode(picture)
    assert torch.equal(features.embedding, embedding)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(features.high_res, high_res, strict=True))
    assert features.embedding.shape == (1, body.token_dim, 4, 4)
    assert [level.shape for level in features.high_res] == [
        (1, body.token_dim // 8, 16, 16),
        (1, body.token_dim // 4, 8, 8),
    ]
    for given in (prompts(1), prompts(1, mask=True)):
        decoded = body.decode(features, given)
        for multimask, tokens in ((True, slice(1, 4)), (False, slice(0, 1))):
            masks, iou, kept, score = original_answer(body.sam, embedding, high_res, given, multimask=multimask)
            assert torch.equal(decoded.logits[:, tokens], masks)
            assert torch.equal(decoded.iou[:, tokens], iou)
            assert torch.equal(decoded.object_score, score)
            if multimask == (kept.shape[1] == 3):
                assert torch.equal(decoded.mask_tokens[:, tokens], kept)
    assert not body.sam.sam_mask_decoder.output_upscaling[-1]._forward_hooks  # taken off again
    assert not body.sam.sam_mask_decoder.output_hypernetworks_mlps[0]._forward_hooks


@torch.no_grad()
def test_a_batch_of_objects_over_images_equals_one_by_one(body):
    pictures, index, given = images(2), torch.tensor([0, 1, 1]), prompts(3, mask=True)
    decoded = body.decode(body.encode(pictures).gather(index), given)
    for n, image in enumerate(index.tolist()):
        alone = body.decode(body.encode(pictures[image : image + 1]), given.select(slice(n, n + 1)))
        for name in ("logits", "iou", "object_score", "mask_tokens", "pixel_tokens", "mask_weights"):
            torch.testing.assert_close(getattr(decoded, name)[n : n + 1], getattr(alone, name), rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_logits_are_the_inner_product_of_the_two_factors(body):
    decoded = body.decode(body.encode(images(2)), prompts(2))
    product = torch.einsum("nkc,nchw->nkhw", decoded.mask_weights.double(), decoded.pixel_tokens.double())
    torch.testing.assert_close(product, decoded.logits.double(), rtol=1e-4, atol=1e-5)
    assert decoded.logits.std() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("kappa", ["channel", "pixel"])
def test_a_fresh_signed_head_changes_no_mask_and_no_score(body, kappa):
    head = BayesianHead(BayesianConfig(kappa=kappa), token_dim=body.token_dim, channels=body.channels)
    features, given = body.encode(images(2)), prompts(2)
    vanilla = UncertainSam(body, None).decode(features, given)
    answer = UncertainSam(body, head).decode(features, given)
    assert vanilla.posterior is None
    assert torch.equal(answer.logits, vanilla.logits)
    assert torch.equal(answer.iou, vanilla.iou)
    choice = torch.tensor([1, 3])
    sure, unsure = vanilla.calibrated_logit(choice), answer.calibrated_logit(choice)
    assert torch.equal(sure, vanilla.logits[torch.arange(2), choice][:, None])
    assert sure.shape == unsure.shape == (2, 1, 16, 16)
    assert torch.equal(sure > 0, unsure > 0)  # the same mask
    assert (unsure.abs() < sure.abs()).all()  # held with less confidence


def test_gradients_reach_the_images_and_no_weight(make_nano):
    backbone = make_nano()
    pictures = images(2).requires_grad_()
    decoded = backbone.decode(backbone.encode(pictures), prompts(2))
    (decoded.logits.square().mean() + decoded.iou.sum()).backward()
    assert (pictures.grad.flatten(1).abs().amax(dim=1) > 0).all()
    assert all(weight.grad is None and not weight.requires_grad for weight in backbone.parameters())
    assert not backbone.training


def test_hooks_go_away_when_the_decoder_fails(make_nano):
    backbone = make_nano()
    features = backbone.encode(images(1))
    with pytest.raises(AssertionError):
        backbone.decode(features, prompts(2))  # features were not gathered
    assert not backbone.sam.sam_mask_decoder.output_upscaling[-1]._forward_hooks


@torch.no_grad()
def test_resize_equals_a_model_built_at_that_size(make_nano):
    backbone, other = make_nano(64), make_nano(128)
    backbone.resize(128)
    assert backbone.image_size == 128
    for name in ("image_embedding_size", "input_image_size", "mask_input_size"):
        assert getattr(backbone.sam.sam_prompt_encoder, name) == getattr(other.sam.sam_prompt_encoder, name)
    picture = torch.randn(1, 3, 128, 128)
    given = prompts(1)
    given.mask_logits = torch.randn(1, 1, 32, 32)
    ours, theirs = (b.decode(b.encode(picture), given) for b in (backbone, other))
    assert ours.logits.shape == (1, 4, 32, 32)
    assert torch.equal(ours.logits, theirs.logits)
    with pytest.raises(ValueError, match=r"expected \[B, 3, 128, 128\]"):
        backbone.encode(images(1))


@pytest.mark.parametrize("side", [0, -32, 48, 100])
def test_impossible_sides_are_refused(make_nano, side):
    backbone = make_nano()
    with pytest.raises(RuacError, match=f"image_size {side}: expected a positive multiple of 32"):
        backbone.resize(side)
    assert backbone.image_size == 64


def test_memory_blocks_are_frozen_copies(make_nano):
    backbone = make_nano()
    source = backbone.sam.memory_encoder
    blocks = backbone.memory_blocks()
    for name in ("mask_downsampler", "pix_feat_proj", "fuser"):
        block, original = getattr(blocks, name), getattr(source, name)
        pairs = list(zip(block.parameters(), original.parameters(), strict=True))
        assert pairs
        assert all(torch.equal(ours, theirs) and ours is not theirs for ours, theirs in pairs)
        assert not any(ours.requires_grad for ours, _ in pairs)
        assert not block.training
        pairs[0][0].data.add_(1)
        assert not torch.equal(*pairs[0])


def test_gather_and_detach(nano):
    features = nano.encode(images(2).requires_grad_())
    gathered = features.gather(torch.tensor([1, 1, 0]))
    for level, source in zip(
        [gathered.embedding, *gathered.high_res], [features.embedding, *features.high_res], strict=True
    ):
        assert torch.equal(level, torch.stack([source[1], source[1], source[0]]))
    one = nano.encode(images(1))
    repeated, copied = one.expand(3), one.gather(torch.zeros(3, dtype=torch.int64))
    for level, source in zip(
        [repeated.embedding, *repeated.high_res], [copied.embedding, *copied.high_res], strict=True
    ):
        assert torch.equal(level, source)
    assert repeated.embedding.data_ptr() == one.embedding.data_ptr()
    assert features.embedding.requires_grad
    cut = features.detach()
    assert not any(level.requires_grad for level in (cut.embedding, *cut.high_res))


def test_logits_as_prompts_and_at_full_size():
    logits = torch.tensor([[[[-50.0, 1.0], [40.0, -3.0]]]], requires_grad=True)
    assert torch.equal(as_prompt(logits), torch.tensor([[[[-32.0, 1.0], [32.0, -3.0]]]]))
    assert not as_prompt(logits).requires_grad
    full = upsample(logits.to(torch.bfloat16), (4, 6))
    assert full.shape == (1, 1, 4, 6)
    assert full.dtype == torch.float32
    assert full[0, 0, 0, 0] == -50
    assert full[0, 0, -1, -1] == -3
