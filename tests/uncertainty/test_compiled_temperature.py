"""The compiled way to the local temperature against whole tensors, which training and graphs take."""

import pytest
import torch
import torch.nn.functional as F
from scipy.special import erf
from torch import nn

from ruac.uncertainty import compiled_temperature as ct
from ruac.uncertainty.compiled import pooled
from ruac.uncertainty.local_temperature import LocalTemperature, answer_inputs


def make_network(hidden):
    torch.manual_seed(0)
    network = LocalTemperature(hidden)
    nn.init.normal_(network.network[-1].weight)  # as if trained
    return network


def answers(count, size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = 6 * torch.randn(count, 4, 5, 5, generator=generator)
    logits = F.interpolate(coarse, size, mode="bicubic")
    index = torch.randint(4, (count,), generator=generator)
    return logits, torch.rand(count, 4, generator=generator), index


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("hidden", "count", "size"),
    [(32, 2, (64, 64)), (8, 3, (20, 20)), (5, 1, (9, 30)), (7, 2, (100, 70)), (8, 1, (256, 256))],
)
def test_it_says_what_whole_tensors_say(hidden, count, size, threads):
    network, answer = make_network(hidden), answers(count, size)
    before, wanted = torch.get_num_threads(), network(*answer)
    assert wanted.requires_grad
    assert wanted.std() > 0.05
    try:
        torch.set_num_threads(threads)
        with torch.no_grad():
            found = network(*answer)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(found, wanted.detach(), rtol=0, atol=1e-4)


@torch.no_grad()
def test_no_object_is_no_map():
    assert make_network(8)(*answers(3, (9, 9))[:2], torch.zeros(3, dtype=torch.int64))[:0].shape == (0, 1, 9, 9)
    logits, iou, index = answers(1, (9, 9))
    assert make_network(8)(logits[:0], iou[:0], index[:0]).shape == (0, 1, 9, 9)


@torch.no_grad()
def test_changed_weights_are_read_anew():
    network, answer = make_network(8), answers(2, (16, 16))
    before = network(*answer)
    network.network[-1].bias += 1
    torch.testing.assert_close(network(*answer), before + 1)
    network.load_state_dict(make_network(8).state_dict())
    torch.testing.assert_close(network(*answer), before)


@torch.no_grad()
def test_what_is_no_number_stays_none_and_extremes_stay_finite():
    network, (logits, iou, index) = make_network(8), answers(2, (16, 16))
    assert network(logits * 1e6, iou, index).isfinite().all()
    logits[1, :, 3, 4] = torch.nan
    found = network(logits, iou, index)
    assert found[0].isfinite().all()
    assert found[1, 0, 3, 4].isnan()


def test_a_ratio_is_the_function():
    x = torch.linspace(-30, 30, 100_001)
    tanh, gelu = (torch.tensor([f(v) for v in x.numpy()]) for f in (ct._tanh, ct._gelu))
    torch.testing.assert_close(tanh, x.tanh(), rtol=0, atol=1e-6)
    exact = x.double() * (1 + torch.from_numpy(erf((x.double() / 2**0.5).numpy()))) / 2
    torch.testing.assert_close(gelu.double(), exact, rtol=0, atol=2e-5)


@torch.no_grad()
def test_what_pixels_share_is_what_the_inputs_have():
    logits, iou, index = answers(3, (20, 20))
    own, entropy, shared = ct.seen_answer(logits, index, iou)
    inputs = answer_inputs(logits, iou, index)
    torch.testing.assert_close(torch.tanh(own / 4), inputs[:, :1])
    torch.testing.assert_close(entropy, inputs[:, 2:3], rtol=1e-4, atol=2e-6)
    for column, place in enumerate((5, 6, 11)):
        torch.testing.assert_close(shared[:, column], inputs[:, place, 0, 0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("pool", [1, 2, 3])
def test_pooled_maps_are_means_of_what_there_is(pool, last):
    maps = torch.randn(3, 5, 7, 8, generator=torch.Generator().manual_seed(0))
    given = maps.contiguous(memory_format=torch.channels_last) if last else maps
    found = pooled(given, pool)
    assert found.is_contiguous(memory_format=torch.channels_last)
    wanted = F.avg_pool2d(maps, pool, ceil_mode=True, count_include_pad=False)
    torch.testing.assert_close(found, wanted)
