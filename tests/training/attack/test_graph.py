import math

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt

from ruac.base.config import load_config
from ruac.base.errors import RuacError
from ruac.training.attack.graph import GraphConfig, ObjectGraphNetwork, object_graph, region_distances


def rng(seed):
    return torch.Generator().manual_seed(seed)


def with_background(objects):
    return torch.cat([objects, 1 - objects.amax(1, keepdim=True)], dim=1)


def boxes(size, *corners):
    masks = torch.zeros(1, len(corners), size, size)
    for k, (top, left, bottom, right) in enumerate(corners):
        masks[0, k, top:bottom, left:right] = 1
    return masks


def test_distances_match_scipy():
    occupied = torch.rand(2, 4, 12, 12, generator=rng(0)) > torch.tensor([0.9, 0.97, 0.95, 0.985])[:, None, None]
    result = region_distances(occupied)
    for b in range(2):
        for i in range(4):
            transform = distance_transform_edt(~occupied[b, i].numpy())
            for j in range(4):
                expected = transform[occupied[b, j].numpy()].min()
                assert result[b, i, j] == pytest.approx(expected, rel=1e-6)


def test_distance_to_an_empty_region_is_infinite():
    occupied = torch.zeros(1, 2, 4, 4, dtype=torch.bool)
    occupied[0, 0, 1, 1] = True
    assert region_distances(occupied)[0, 0, 1] == torch.inf
    assert not region_distances(occupied).isnan().any()


def test_edges_match_a_brute_force():
    objects = (torch.rand(2, 3, 64, 64, generator=rng(1)) > 0.995).float()
    objects[:, 0, 4:30, 4:30] = 1
    objects[:, 1, 20:44, 8:40] = 1
    regions, features, config = with_background(objects), torch.randn(2, 4, 3, generator=rng(2)), GraphConfig()
    features[:, 1] = features[:, 0] + 0.1
    result = object_graph(regions, features, 8, config)
    cells = objects.reshape(2, 3, 8, 8, 8, 8).amax((3, 5)).bool().numpy()
    for b in range(2):
        for i in range(3):
            for j in range(3):
                if i == j:
                    assert result[b, i, j] == 1
                    continue
                first, second = objects[b, i].bool(), objects[b, j].bool()
                iou = ((first & second).sum() / (first | second).sum()).item()
                gaps = np.argwhere(cells[b, i])[:, None] - np.argwhere(cells[b, j])[None]
                distance = np.sqrt((gaps**2).sum(-1)).min() / (8 * math.sqrt(2))
                cosine = torch.cosine_similarity(features[b, i], features[b, j], dim=0).item()
                expected = iou + max(0.0, 1 - distance) * (distance < 1) + cosine * (cosine > 0.5)
                assert result[b, i, j].item() == pytest.approx(expected, abs=1e-5)
        assert torch.equal(result[b, -1], torch.tensor([0.5, 0.5, 0.5, 1.0]))
    assert torch.equal(result, result.transpose(1, 2))


def test_near_objects_are_tied_more_than_far_ones_and_the_threshold_cuts():
    masks = boxes(64, (0, 0, 8, 8), (0, 16, 8, 24), (48, 48, 64, 64))
    features = torch.eye(4)[None]  # orthogonal: no cosine term
    graph = object_graph(with_background(masks), features, 8, GraphConfig())
    assert graph[0, 0, 1] == pytest.approx(1 - 2 / (8 * math.sqrt(2)))
    assert graph[0, 0, 1] > graph[0, 0, 2] > 0
    cut = object_graph(with_background(masks), features, 8, GraphConfig(distance_threshold=0.3))
    assert cut[0, 0, 1] == graph[0, 0, 1]
    assert cut[0, 0, 2] == 0


def test_an_empty_region_has_only_its_loop_and_changes_nothing():
    masks = boxes(64, (0, 0, 16, 16), (30, 30, 60, 60))
    padded = torch.cat([masks, torch.zeros(1, 1, 64, 64)], dim=1)
    features = torch.randn(1, 3, 5, generator=rng(3))
    wide = torch.cat([features[:, :2], torch.full((1, 1, 5), 9.0), features[:, 2:]], dim=1)
    graph = object_graph(with_background(masks), features, 4, GraphConfig())
    larger = object_graph(with_background(padded), wide, 4, GraphConfig())
    assert torch.equal(larger[0, 2], torch.tensor([0.0, 0.0, 1.0, 0.0]))
    keep = torch.tensor([0, 1, 3])
    assert torch.equal(larger[0][keep][:, keep], graph[0])


def test_no_background_left_is_no_error():
    graph = object_graph(with_background(torch.ones(1, 1, 32, 32)), torch.randn(1, 2, 4), 2, GraphConfig())
    assert torch.equal(graph[0], torch.eye(2))


def test_network_is_equivariant_and_mixes_only_along_edges():
    torch.manual_seed(4)
    network = ObjectGraphNetwork(GraphConfig(dropout=0.0), feature_dim=8, projection_hidden=16, init_std=1.0)
    residual, features = torch.randn(1, 4, 6), torch.randn(1, 4, 8)
    edges = torch.tensor([[1.0, 0.7, 0, 0], [0.7, 1, 0, 0], [0, 0, 1, 0.2], [0, 0, 0.2, 1]])[None]
    out = network(residual, features, edges)
    order = torch.tensor([2, 0, 3, 1])
    shuffled = network(residual[:, order], features[:, order], edges[:, order][:, :, order])
    torch.testing.assert_close(shuffled, out[:, order])
    residual[:, 3] += 1
    changed = network(residual, features, edges)
    torch.testing.assert_close(changed[:, :2], out[:, :2])
    assert (changed[:, 2:] - out[:, 2:]).abs().amin(-1).min() > 0


def test_a_node_takes_the_weighted_mean_of_its_neighbours():
    # D^-1 A is a mean: nodes that are all alike stay alike, however unevenly they are tied
    torch.manual_seed(5)
    network = ObjectGraphNetwork(GraphConfig(), feature_dim=8, projection_hidden=16, init_std=1.0).eval()
    edges = torch.tensor([[1.0, 2, 0], [2, 1, 0.3], [0, 0.3, 1]])[None]
    out = network(torch.randn(1, 1, 6).expand(1, 3, 6), torch.randn(1, 1, 8).expand(1, 3, 8), edges)
    torch.testing.assert_close(out, out[:, :1].expand(1, 3, 6))


def test_parameter_count():
    network = ObjectGraphNetwork(GraphConfig(), feature_dim=256, projection_hidden=128, init_std=0.01)
    assert sum(p.numel() for p in network.parameters()) == 34_012  # paper: 34 K


@pytest.mark.parametrize("override", ["dropout=1.0", "hidden=0", "background_edge=-1", "distance_threshold=-0.1"])
def test_impossible_settings_are_refused(override):
    with pytest.raises(RuacError, match=override.split("=")[0]):
        load_config(GraphConfig, None, [override])
