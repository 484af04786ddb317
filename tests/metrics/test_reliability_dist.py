"""Two processes that see half of the images each end with the sums of one that saw them all."""

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from ruac.metrics.reliability import ReliabilitySums


def _image(index):
    generator = torch.Generator().manual_seed(index)
    p = torch.rand(4000 + index, generator=generator)
    u = torch.rand(p.shape, generator=generator)
    return dict(probability=p, uncertainty=u, target=torch.rand(p.shape, generator=generator) < p, prediction=p > 0.5)


def _worker(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    sums = ReliabilitySums()
    for index in range(rank, 7, 2):  # 4 and 3 images
        sums.update(**_image(index))
    sums.all_reduce()
    np.savez(f"{folder}/{rank}.npz", **sums.to_arrays())
    dist.destroy_process_group()


@pytest.mark.dist
@pytest.mark.skipif(not dist.is_available(), reason="needs torch.distributed")
def test_two_processes_equal_one(tmp_path):
    mp.spawn(_worker, args=(str(tmp_path),), nprocs=2)
    alone = ReliabilitySums()
    for index in range(7):
        alone.update(**_image(index))
    for rank in range(2):
        with np.load(tmp_path / f"{rank}.npz") as saved:
            both = ReliabilitySums.from_arrays(saved)
        for name, values in alone.to_arrays().items():
            np.testing.assert_array_equal(getattr(both, name), values)
        assert both.compute() == alone.compute()
