"""A reader of two answers: which inputs it sees, and what it may do to their mean."""

import pytest
import torch

from ruac.base.errors import RuacError
from ruac.uncertainty.look_reader import INPUTS, LookReader, LookReaderConfig, SeenAnswer, look_inputs, reread


def seen(seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, 4, 16, 16, generator=generator)
    return SeenAnswer(logits, torch.rand(2, 4, generator=generator), torch.tensor([1, 3]))


def test_inputs_by_hand():
    first, second = seen(0), seen(1)
    edges = torch.rand(2, 1, 16, 16)
    maps = look_inputs(first, second, torch.tensor([0.5, 0.1]), edges)
    assert maps.shape == (2, len(INPUTS), 16, 16)
    named = dict(zip(INPUTS, maps.unbind(1), strict=True))
    one, two = (each.logits[torch.arange(2), each.choice].sigmoid() for each in (first, second))
    torch.testing.assert_close(named["mean"], one + two - 1)
    torch.testing.assert_close(named["difference"], (one - two).abs())
    torch.testing.assert_close(named["edge of the image"], edges[:, 0])
    assert named["share of the picture"][1, 0, 0] == pytest.approx(-2.302585)
    overlap = torch.minimum(one, two).sum((1, 2)) / torch.maximum(one, two).sum((1, 2))
    torch.testing.assert_close(named["overlap of the masks"][:, 3, 3], overlap)
    torch.testing.assert_close(named["first: predicted IoU"][1, 0, 0], first.iou[1, 3])
    torch.testing.assert_close(named["second: logit"], torch.tanh(second.logits[torch.arange(2), second.choice] / 4))


def test_the_same_answer_twice_differs_nowhere():
    maps = look_inputs(seen(0), seen(0), torch.ones(2), torch.zeros(2, 1, 16, 16))
    named = dict(zip(INPUTS, maps.unbind(1), strict=True))
    assert named["difference"].abs().max() == 0
    assert (named["overlap of the masks"] == 1).all()
    assert named["share of the picture"].abs().max() == 0


@pytest.mark.parametrize("context", [0, 6])
def test_a_fresh_reader_changes_nearly_nothing_and_a_wild_one_keeps_within_bounds(context):
    reader = LookReader(LookReaderConfig(hidden=8, context=context))
    inputs = look_inputs(seen(0), seen(1), torch.ones(2), torch.zeros(2, 1, 16, 16))
    reader.standardise(inputs)
    assert reader.read(inputs).abs().max() < 0.1
    with torch.no_grad():
        reader.network[-1].bias.fill_(1e6)
    reading = reader(seen(0), seen(1), torch.ones(2), torch.zeros(2, 1, 16, 16))
    assert (reading[:, 0] == 3).all()
    assert (reading[:, 1] == 9).all()


def test_what_is_read_scales_and_shifts():
    logits = torch.tensor([-2.0, 0.0, 1.0]).reshape(1, 1, 1, 3)
    reading = torch.tensor([[0.0, 1.0, 2.0], [0.5, -0.5, -9.0]]).reshape(1, 2, 1, 3)
    expected = torch.tensor([-1.5, -0.5, torch.tensor(2.0).exp() - 9])
    torch.testing.assert_close(reread(logits, reading).reshape(-1), expected)


def test_inputs_that_no_fit_has_seen_count_as_extreme_ones():
    reader = LookReader(LookReaderConfig(hidden=8))
    reader.standardise(torch.randn(10, len(INPUTS), 10, 10))
    far = torch.full((1, len(INPUTS), 1, 1), 1e3)
    assert torch.equal(reader.read(far), reader.read(10 * far))


def test_middle_and_spread_are_those_of_all_pixels():
    maps = (3 * torch.randn(70, len(INPUTS), 5, 4) + 2).half()  # more objects than are taken at a time
    reader = LookReader(LookReaderConfig(hidden=8))
    reader.standardise(maps)
    pixels = maps.double().movedim(1, -1).flatten(0, -2)
    torch.testing.assert_close(reader.middle[:, 0, 0].double(), pixels.mean(0), atol=1e-5, rtol=0)
    torch.testing.assert_close(reader.spread[:, 0, 0].double(), pixels.std(0, correction=0), atol=1e-5, rtol=0)


def test_surroundings_count_only_with_a_context_and_reach_half_a_window():
    inputs = torch.zeros(1, len(INPUTS), 32, 32)
    other = inputs.clone()
    other[..., 5, 16] = 3.0
    for context in (0, 6):
        torch.manual_seed(0)
        reader = LookReader(LookReaderConfig(hidden=8, context=context)).eval()
        moved = (reader.read(other) - reader.read(inputs)).abs().sum(1)[0] > 0
        rows = moved.any(1).nonzero()[:, 0]
        assert moved[5, 16]
        assert (rows.min().item(), rows.max().item()) == ((5, 5) if context == 0 else (0, 12))


def test_what_is_read_of_an_even_window_does_not_depend_on_the_grid():
    torch.manual_seed(0)
    reader = LookReader(LookReaderConfig(hidden=8, context=6))
    even = torch.randn(1, len(INPUTS), 1, 1)
    small, large = (reader.read(even.expand(-1, -1, side, side)) for side in (32, 96))
    torch.testing.assert_close(small[..., 16, 16], large[..., 48, 48], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("values", "name"), [({"hidden": 0}, "hidden: 0"), ({"context": -1}, "context: -1")])
def test_a_width_of_nothing_is_refused(values, name):
    with pytest.raises(RuacError, match=rf"reader.{name}, expected at least"):
        LookReaderConfig(**values).validate()
