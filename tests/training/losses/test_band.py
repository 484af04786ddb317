"""The loss's band against the evaluation's, which is exact and at full resolution."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ruac.evaluation.metrics import object_band
from ruac.training.losses.band import loss_band


def disks(side, *radii):
    y, x = np.mgrid[:side, :side]
    return np.stack([(x - side // 2) ** 2 + (y - side // 3) ** 2 < r * r for r in radii])


@pytest.mark.parametrize(("radius", "overlap"), [(6, 0.6), (20, 0.9), (50, 0.88)])
def test_is_the_evaluations_band_in_cells_of_the_logits(radius, overlap):
    truth = disks(256, radius)
    wanted = torch.from_numpy(object_band(truth))[:, 2::4, 2::4]
    found = loss_band(F.avg_pool2d(torch.from_numpy(truth).float(), 4))
    assert (found & wanted).sum() / (found | wanted).sum() > overlap


def test_objects_do_not_depend_on_each_other():
    targets = F.avg_pool2d(torch.from_numpy(disks(128, 3, 30)).float(), 4)
    together = loss_band(targets)
    for n in range(2):
        assert torch.equal(loss_band(targets[n : n + 1])[0], together[n])


def test_holds_an_object_smaller_than_a_cell_and_nothing_of_an_empty_one():
    targets = torch.zeros(2, 8, 8)
    targets[0, 3, 4] = 0.1
    band = loss_band(targets)
    assert band[0, 3, 4]
    assert band[0].sum() == 5
    assert not band[1].any()
    assert loss_band(torch.zeros(0, 8, 8)).shape == (0, 8, 8)
