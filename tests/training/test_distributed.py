"""Two gloo processes train together: nothing hangs, nothing is seen twice, everybody agrees."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.dist,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not dist.is_available(), reason="needs torch.distributed"),
]

WORKER = '''
import sys
import ruac
import torch
from accelerate import PartialState
from ruac.training.attack import AttackConfig
from ruac.backbone import Backbone
from ruac.backbone.nano import Nano
from ruac.data.synthetic.scenes import SceneConfig, SceneDataset
from ruac.data.training import TrainingSet
from ruac.training.adversarial import AdversarialTask, TrainConfig
from ruac.training.curriculum import CurriculumConfig, Phase
from ruac.training.engine import EngineConfig, train
from ruac.training.validation import ValidationConfig

class Stream(TrainingSet):
    """Remembers what was drawn."""
    def __getitem__(self, number):
        drawn.append(number)
        return super().__getitem__(number)

class Observed(AdversarialTask):
    def validate(self, accelerator):
        scores.append(super().validate(accelerator))
        return scores[-1]

out = sys.argv[1]
drawn, scores = [], []
torch.set_num_threads(1)
torch.manual_seed(7)
backbone = Backbone(Nano(image_size=64, width=64, mlp=64), name="nano")
phases = [Phase(0.25, 1.0, 0.0, 0.0), Phase(0.5, 1.0, 0.05, 0.0), Phase(1.0, 0.8, 0.05, 0.2)]
engine = EngineConfig(
    steps=4, batch_size=1, accumulate=2, cpu=True, log_every=1, validate_every=2, save_every=2, panel_every=2
)
check, curriculum = ValidationConfig(images=3, clicks=2), CurriculumConfig(phases)
config = TrainConfig("scenes", corrections=1, head_rate=1e-2, curriculum=curriculum, engine=engine, validation=check)
source, held_out = (SceneDataset(count, seed=count, config=SceneConfig(side=64)) for count in (6, 3))
task = Observed(backbone, config, held_out)
data = Stream(source, config.data, side=64, seed=0, length=1 << 40)
train(task, data, engine, out, run_config=config, resume=False)
weights = {name: module.state_dict() for name, module in task.trained_modules().items()}
torch.save({"weights": weights, "drawn": drawn, "scores": scores}, f"{out}/rank{PartialState().process_index}.pt")
'''


def launch(folder, processes, nodes=1):
    """What each of `processes` leaves behind, of one launcher or of one on each of `nodes`, all on this host."""
    script = folder / "worker.py"
    script.write_text(WORKER)
    out = folder / f"{processes} on {nodes}"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    options = dict(env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder)
    launched = []
    try:
        for launcher in launchers(processes, nodes):
            launched.append(subprocess.Popen([sys.executable, *launcher, str(script), str(out)], **options))
        for process in launched:
            said, _ = process.communicate(timeout=800)
            assert process.returncode == 0, said[-3000:]
    finally:
        for process in launched:
            process.kill()
    return [torch.load(out / f"rank{rank}.pt", weights_only=True) for rank in range(processes)]


def launchers(processes, nodes):
    if processes == 1:
        return [[]]
    run = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes // nodes)]
    if nodes == 1:
        return [[*run, "--standalone"]]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meet = ["--master_addr", "127.0.0.1", "--master_port", str(free.getsockname()[1])]
    return [[*run, "--nnodes", str(nodes), "--node_rank", str(rank), *meet] for rank in range(nodes)]


def same(ours, theirs):
    return all(torch.equal(ours[part][name], theirs[part][name]) for part in ours for name in ours[part])


def test_two_processes_pass_every_phase_and_agree(tmp_path):
    first, second = launch(tmp_path, 2)
    assert same(first["weights"], second["weights"])
    assert not set(first["drawn"]) & set(second["drawn"])
    assert sorted(first["drawn"] + second["drawn"]) == list(range(4 * 2 * 1 * 2))
    assert first["scores"] == second["scores"]
    saved = torch.load(tmp_path / "2 on 1" / "last.pt", weights_only=True)
    assert saved["step"] == 4
    assert same(saved["modules"], first["weights"])

    (alone,) = launch(tmp_path, 1)  # the frozen backbone's scores do not depend on the number of processes
    assert alone["drawn"] == list(range(4 * 2 * 1))
    for ours, theirs in zip(alone["scores"], first["scores"], strict=True):
        for name in ("j", "f", "band_auroc", "band_ece", "band_nll", "band_aurc"):
            assert ours[f"vanilla/{name}"] == pytest.approx(theirs[f"vanilla/{name}"], rel=1e-6), name


def test_two_nodes_train_as_two_processes_of_one(tmp_path):
    """Two launchers, as on two machines: the processes find each other by address and port alone."""
    together, apart = launch(tmp_path, 2), launch(tmp_path, 2, nodes=2)
    for ours, theirs in zip(together, apart, strict=True):
        assert ours["drawn"] == theirs["drawn"]
        for part, weights in ours["weights"].items():
            for name, values in weights.items():
                torch.testing.assert_close(theirs["weights"][part][name], values, rtol=1e-5, atol=1e-7)
    assert same(apart[0]["weights"], apart[1]["weights"])
