"""However a sweep's work is shared out, its rows are the same to the last bit."""

import os
from dataclasses import replace

import pytest
import torch.distributed as dist
from processes import together

from ruac.evaluation.sweep import runner

jobs_left = runner.jobs_left


@pytest.mark.dist
@pytest.mark.skipif(not dist.is_available(), reason="needs torch.distributed")
@pytest.mark.parametrize(("processes", "backwards"), [(1, True), (2, True), (3, False)])
def test_processes_and_order_change_nothing(
    config, finished, tmp_path, monkeypatch, sweep, assert_same_results, processes, backwards
):
    monkeypatch.setattr(runner, "jobs_left", lambda swept: jobs_left(swept)[:: -1 if backwards else 1])
    out, evaluate = tmp_path / "shared", runner.evaluate_image

    def seen(models, sample, *args, **kwargs):
        (tmp_path / f"{kwargs['domain']}-{sample.record.id}-{os.getpid()}").touch()
        evaluate(models, sample, *args, **kwargs)

    monkeypatch.setattr(runner, "evaluate_image", seen)
    together(processes, lambda: sweep(replace(config, out=str(out))))
    assert_same_results(out, finished)
    done = [path.name.rsplit("-", 1)[0] for path in tmp_path.glob("*.png-*")]
    assert len(done) == len(set(done)) == 6  # three images of two domains, each by one process
