"""Two processes with half of the batches each give what one gives with all: every class in one start."""

import json

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def _worker(rank, folder):
    from test_metric_classes import CLASSES, _updated, _value

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    values = {name: _value(_updated(name, batches[rank::2])) for name, (_, batches) in CLASSES.items()}
    sums = _updated("Reliability", CLASSES["Reliability"][1][rank::2]).sums
    sums.all_reduce()
    values["sums"] = sums.compute()
    with open(f"{folder}/{rank}.json", "w") as file:
        json.dump(values, file)
    dist.destroy_process_group()


@pytest.mark.dist
@pytest.mark.skipif(not dist.is_available(), reason="needs torch.distributed")
def test_two_processes_equal_one(tmp_path):
    from test_metric_classes import CLASSES, _updated, _value

    mp.spawn(_worker, args=(str(tmp_path),), nprocs=2)
    alone = {name: _value(_updated(name, batches)) for name, (_, batches) in CLASSES.items()}
    alone["sums"] = _updated("Reliability", CLASSES["Reliability"][1]).sums.compute()
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == alone
