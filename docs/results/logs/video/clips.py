"""Real clips: how doubt follows the error of a frame, and what prompting a doubted frame again is worth: clips.txt.

python docs/results/logs/video/clips.py SRC

The clips of the source's origins davis (every few frames) and ytvos (frames far apart, and DAVIS parkour), one object
each, prompted with its box in the first frame; the embedded model, which has no memory. Then its box in one more frame:
that which `VideoReview` doubts most, the first that it doubts, or each of the later frames in turn, whose mean is what
a frame at random gives.
"""

import sys

import numpy as np
import torch
from scipy.stats import spearmanr

from ruac.data.open import open_dataset
from ruac.evaluation.metrics import jaccard
from ruac.inference.predictor import Predictor
from ruac.inference.video import VideoPredictor, VideoReview


def clips(source):
    found = {}
    for split in ("train", "val"):
        dataset = open_dataset(source, split=split)
        for number, record in enumerate(dataset.records):
            if record.origin in ("davis", "ytvos"):
                found.setdefault(record.id.rsplit("_", 1)[0], []).append((record.id, dataset, number))
    return {name: [data[number] for _, data, number in sorted(frames, key=lambda x: x[0])]
            for name, frames in sorted(found.items())}  # fmt: skip


def box(mask):
    y, x = np.nonzero(mask)
    return [x.min(), y.min(), x.max() + 1, y.max() + 1]


def follow(video, samples, prompted):
    """IoU and doubt of every frame, of those prompted with their boxes; and the review."""
    video.set_video([sample.image for sample in samples])
    for number in prompted:
        video.add_prompt(number, object_id=1, box=box(samples[number].masks[0]))
    frames = list(video.propagate())
    iou = [jaccard(frame.masks, sample.masks[:1])[0] for frame, sample in zip(frames, samples, strict=True)]
    return np.array(iou), np.array([frame.doubt[0] for frame in frames]), VideoReview().extend(frames)


def main(source):
    torch.set_num_threads(1)
    video = VideoPredictor(Predictor())
    every, gains = [], []
    for name, samples in clips(source).items():
        iou, doubt, review = follow(video, samples, [0])
        every.append((iou[1:], doubt[1:]))
        print(f"{name}: IoU {np.round(iou, 2)}, doubt {np.round(doubt, 2)}, to prompt {review.to_prompt()}", flush=True)
        asked = [number for number, _ in review.to_prompt() if number]
        if asked:
            again = {n: follow(video, samples, [0, n])[0].mean() for n in range(1, len(samples))}
            first = 1 + int(np.argmax(doubt[1:] >= review.threshold))
            gains.append(
                (iou.mean(), again[asked[0]], again[first], np.mean(list(again.values())), max(again.values()))
            )
            print(
                f"    mean IoU {gains[-1][0]:.2f}; with frame {asked[0]} {gains[-1][1]:.2f}, "
                f"the first doubted, {first}, {gains[-1][2]:.2f}, any {gains[-1][3]:.2f}"
            )
    iou, doubt = (np.concatenate(column) for column in zip(*every, strict=True))
    within = [spearmanr(d, i).statistic for i, d in every if len(i) > 4 and np.ptp(i) > 0]
    print(f"{len(every)} clips, {len(iou)} frames after the first, mean IoU {iou.mean():.3f}", end="; ")
    print(f"Spearman of doubt and IoU {spearmanr(doubt, iou).statistic:.2f}, ", end="")
    print(f"within a clip of 6 frames or more {np.mean(within):.2f} ({len(within)} clips)")
    means = " ".join(f"{value:.3f}" for value in np.mean(gains, axis=0))
    print(
        f"{len(gains)} clips, mean IoU with one prompt, the most doubted frame too, the first doubted, a random one, "
    )
    print(f"the best: {means}")


if __name__ == "__main__":
    main(*sys.argv[1:])
