"""How much of a GPU the work uses: encoding, decoding and a training step of an official architecture in bf16."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import default_collate
from torch.utils.flop_counter import FlopCounterMode

from ruac.backbone import BackboneConfig, build_backbone
from ruac.backbone.load import ROOT
from ruac.backbone.prompts import OBJECT, Prompts
from ruac.base.config import load_config
from ruac.base.errors import RuacError
from ruac.data.synthetic.scenes import SceneConfig, SceneDataset
from ruac.data.training import TrainingSet
from ruac.studies.benchmark.cases import Case
from ruac.studies.benchmark.rows import Row
from ruac.training.adversarial import AdversarialTask, TrainConfig

PROGRESS = 0.9  # of training: with all terms and the attackers
TOP = 8  # kernels that the profile names


def run(*, kind: str, side: int, batch_sizes: tuple[int, ...], objects: int, repeats: int) -> list[Row]:
    """Seconds are of the device. Ratio: achieved floating-point operations a second to a large matrix product's.

    Raises `RuacError` without a CUDA device.
    """
    if not torch.cuda.is_available():
        raise RuacError("benchmark gpu: no CUDA device here")
    peak = matrix_peak(repeats)
    rows = [
        Row(f"{torch.cuda.get_device_name()}: matrix product, 8192, bf16", 2 * 8192**3 / peak, 1.0, note=_rate(peak))
    ]
    case = Case(kind, side, objects)
    model = case.model().cuda()
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
        for batch in batch_sizes:
            images = torch.randn(batch, 3, side, side, device="cuda")
            rows.append(_row(f"{kind}, {side} px: encode {batch}", lambda x=images: model.encode(x), peak, repeats))
        one = model.encode(torch.randn(1, 3, side, side, device="cuda"))
        asked = Prompts(
            side * torch.rand(objects, 1, 2, device="cuda"), torch.full((objects, 1), OBJECT, device="cuda")
        )
        choice = torch.ones(objects, dtype=torch.int64, device="cuda")
        spread = one.expand(objects)
        rows.append(
            _row(
                f"{kind}, {side} px: decode {objects} objects with the head",
                lambda: model.decode(spread, asked).calibrated_logit(choice),
                peak,
                repeats,
            )
        )
    for name in ("bayes", "ruac"):
        step = training_step(kind, side, batch_sizes[0], name)
        torch.cuda.reset_peak_memory_stats()
        rows.append(_row(f"{kind}, {side} px: training step of {batch_sizes[0]}, {name}.yaml", step, peak, repeats))
    return rows + kernels(step)


def matrix_peak(repeats: int) -> float:
    """Floating-point operations a second of a bf16 product of two random 8192 x 8192 matrices."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return 2 * 8192**3 / seconds(lambda: a @ b, max(repeats, 5))


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Median device seconds of `work`, after two turns to warm up."""
    times = []
    for turn in range(repeats + 2):
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        work()
        last.record()
        torch.cuda.synchronize()
        if turn >= 2:
            times.append(first.elapsed_time(last) / 1000)
    return sorted(times)[len(times) // 2]


def training_step(kind: str, side: int, batch: int, name: str) -> Callable[[], None]:
    """Forward and backward of one batch of 3 objects an image, as `name`.yaml trains it, in bf16."""
    torch.manual_seed(0)
    config = load_config(TrainConfig, ROOT / "configs" / "train" / f"{name}.yaml", ["source=scenes"])
    task = AdversarialTask(build_backbone(BackboneConfig(kind=kind, image_size=side)), config, None).cuda().train()
    scenes = SceneDataset(batch, seed=0, config=SceneConfig(side=side))
    data = TrainingSet(scenes, config.data, side=side, seed=0, length=batch)
    inputs = {k: v.cuda() for k, v in default_collate([data[number] for number in range(batch)]).items()}

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            loss = task(inputs, PROGRESS)["loss"]
        loss.backward()
        task.zero_grad()

    return step


def kernels(step: Callable[[], None]) -> list[Row]:
    """The operations that take most of a step's device time. Ratio: their share of it."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        start = time.perf_counter()
        step()
        torch.cuda.synchronize()
        wall = time.perf_counter() - start
    events = [event for event in seen.key_averages() if event.self_device_time_total > 0]
    total = sum(event.self_device_time_total for event in events)
    events = sorted(events, key=lambda event: -event.self_device_time_total)[:TOP]
    first = Row("training step under the profiler", wall, total / 1e6 / wall, note="ratio: device time to wall time")
    return [first] + [
        Row(
            f"of it {e.key[:60]}",
            e.self_device_time_total / 1e6,
            e.self_device_time_total / total,
            note=f"{e.count} times",
        )
        for e in events
    ]


def _row(name: str, work: Callable[[], object], peak: float, repeats: int) -> Row:
    with FlopCounterMode(display=False) as counter:
        work()
    flops = counter.get_total_flops()
    torch.cuda.reset_peak_memory_stats()
    took = seconds(work, repeats)
    memory = torch.cuda.max_memory_allocated() / 2**30
    return Row(
        name, took, flops / took / peak, note=f"{flops / 1e12:.2f} TFLOP, {_rate(flops / took)}, {memory:.1f} GiB"
    )


def _rate(value: float) -> str:
    return f"{value / 1e12:.0f} TFLOP/s"
