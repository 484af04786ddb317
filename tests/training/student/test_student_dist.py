"""Two gloo processes train a student: the same weights, no picture number twice, one and the same validation."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

ROOT = Path(__file__).parents[3]
pytestmark = [
    pytest.mark.dist,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not dist.is_available(), reason="needs torch.distributed"),
]

WORKER = """
import gc
import sys
import ruac
import torch
from accelerate import Accelerator, PartialState
from torch.nn.parallel import DistributedDataParallel
from ruac.base.config import load_config
from ruac.training.student.run import StudentConfig, train_student
from ruac.training.student.stream import StudentStream
from ruac.training.student.task import StudentTask

out, *settings = sys.argv[1:]
torch.set_num_threads(1)
drawn, tasks, scores = [], [], []
draw, create, judge = StudentStream.__getitem__, StudentTask.__init__, StudentTask.validate
StudentStream.__getitem__ = lambda self, number: drawn.append(number) or draw(self, number)
StudentTask.__init__ = lambda self, *args: tasks.append(self) or create(self, *args)
def validate(self, accelerator):
    scores.append(judge(self, accelerator))
    return scores[-1]
StudentTask.validate = validate
end, wrappers = Accelerator.end_training, []
def ended(self):  # the process group must outlive those who use it
    wrappers.append(sum(isinstance(each, DistributedDataParallel) for each in gc.get_objects()))
    end(self)
Accelerator.end_training = ended
train_student(load_config(StudentConfig, None, [*settings, f"out={out}"]), resume=False)
weights = {name: module.state_dict() for name, module in tasks[0].trained_modules().items()}
kept = {"weights": weights, "drawn": drawn, "scores": scores, "wrappers": wrappers}
torch.save(kept, f"{out}/rank{PartialState().process_index}.pt")
"""


def test_two_processes_agree(settings, tmp_path):
    (tmp_path / "worker.py").write_text(WORKER)
    out = tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    more = ["method=unimatch_v2", "consistency.threshold=0.3"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(
        [*command, str(tmp_path / "worker.py"), str(out), *settings, *more],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(out / f"rank{rank}.pt", weights_only=True) for rank in range(2))
    for part in first["weights"]:
        for name, value in first["weights"][part].items():
            assert torch.equal(value, second["weights"][part][name]), (part, name)
    steps = json.loads((out / "result.json").read_text())["steps"]
    assert steps == 2 * 3  # ten pictures, two a process and step
    assert sorted(first["drawn"] + second["drawn"]) == list(range(steps * 4))
    assert first["scores"] == second["scores"]
    assert len(first["scores"]) == 2
    assert first["wrappers"] == second["wrappers"] == [0]
