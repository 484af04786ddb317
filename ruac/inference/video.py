"""Objects through a video, with what is not known of them in each frame, and the frames to prompt again."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ruac.backbone import Decoded
from ruac.backbone.outputs import best_candidate, upsample
from ruac.backbone.prompts import Prompts, central_pixel
from ruac.backbone.recorder import recorded
from ruac.backbone.sam2_parts import SAM2Base, video_predictor
from ruac.base.errors import RuacError
from ruac.data.sample import IMAGE_SUFFIXES
from ruac.inference.expected_iou import joint_iou
from ruac.inference.model import predict
from ruac.inference.picture import picture_of
from ruac.inference.predictor import Predictor
from ruac.inference.user_prompts import UserPrompts

GROWN = 0.1  # of a mask's sides, by which its box is grown for the next frame, without a memory


@dataclass(frozen=True)
class VideoFrame:
    """The answer to N objects in one frame.

    frame: its number. object_ids: of the N objects. masks: ``bool [N, H, W]``, none where SAM 2 thinks the object
    absent. scores: predicted IoU ``[N]``. presence: SAM 2's probability that the object is in the frame, ``[N]``.
    probability, uncertainty: ``[N, H, W]``, of the object if it is there. doubt: ``[N]``, share of the IoU that is
    expected to be lost, 1 - `joint_iou`; 1 for an object that is thought absent.
    """

    frame: int
    object_ids: list[int]
    masks: np.ndarray
    scores: np.ndarray
    presence: np.ndarray
    probability: np.ndarray
    uncertainty: np.ndarray
    doubt: np.ndarray


class VideoPredictor:
    """`set_video`, `add_prompt` in some frames, then `propagate`; prompts may be added and everything propagated again.

    Official sizes go through the video with SAM 2's own video predictor and its memory, and the head listens to every
    decoder pass. `nano` has no trained memory: there a frame is asked with the box and the middle of the mask before,
    which follows slow objects and loses others; see docs/predictor.md.
    """

    def __init__(self, predictor: Predictor):
        self.predictor = predictor
        self._frames: list[np.ndarray] = []
        self._prompts: dict[int, dict[int, Prompts]] = {}  # by object, then by frame

    @property
    def has_memory(self) -> bool:
        """Whether the model's own memory carries objects from frame to frame."""
        sam = self.predictor.model.backbone.sam
        return isinstance(sam, SAM2Base) and sam.memory_encoder is not None

    def set_video(self, frames: str | Path | Sequence[Any]) -> None:
        """A folder of pictures in the order of their names, or a list of pictures in any form, all of one size."""
        self._prompts = {}
        if isinstance(frames, (str, Path)):
            folder = Path(frames)
            frames = sorted(path for path in folder.glob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
            if not frames:
                raise RuacError(f"{folder}: expected a folder with the frames of a video as pictures")
        self._frames = [picture_of(frame, f"frame {number}") for number, frame in enumerate(frames)]
        sizes = {frame.shape[:2] for frame in self._frames}
        if len(sizes) != 1:
            raise RuacError(f"video: frames of sizes {sorted(sizes)}, expected at least one frame, all of one size")

    def add_prompt(
        self, frame: int, object_id: int, point_coords: Any = None, point_labels: Any = None, box: Any = None
    ) -> None:
        """Prompt an object in a frame, as in `Predictor.predict`; another prompt of it there is replaced.

        Raises `RuacError` for a frame that the video has not, or a prompt that does not fit.
        """
        if not self._frames:
            raise RuacError("add_prompt: no video; call set_video first")
        if not 0 <= frame < len(self._frames):
            raise RuacError(f"frame {frame}: expected one of 0 to {len(self._frames) - 1}")
        body, size = self.predictor.model.backbone, self._size
        asked = UserPrompts(
            point_coords, point_labels, box, None, True, size, body.frame(size), body.mask_stride
        ).groups(self.predictor.device)
        if len(asked) != 1 or len(asked[0][0]) != 1:
            raise RuacError("add_prompt: expected one object; call it once for each")
        self._prompts.setdefault(object_id, {})[frame] = asked[0][1]

    def propagate(self) -> Iterator[VideoFrame]:
        """Answers from the first prompted frame to the last frame, in order.

        An object is answered from its first prompt on. Raises `RuacError` without a prompt.
        """
        if not self._prompts:
            raise RuacError("propagate: no prompt; call add_prompt first")
        return self._with_memory() if self.has_memory else self._from_mask_to_mask()

    @property
    def _size(self) -> tuple[int, int]:
        return self._frames[0].shape[:2]

    @torch.no_grad()
    def _with_memory(self) -> Iterator[VideoFrame]:
        model = self.predictor.model
        video = video_predictor(model.backbone.sam)
        ids = sorted(self._prompts)
        known: dict[tuple[int, int], tuple[Decoded, int]] = {}
        with tempfile.TemporaryDirectory() as folder:
            for number, frame in enumerate(self._frames):  # SAM 2 reads files of this name whatever is in them
                Image.fromarray(frame).save(Path(folder) / f"{number:06}.jpg", format="PNG")
            state = video.init_state(folder)
        with recorded(model.backbone.sam.sam_mask_decoder) as passes:
            for object_id in ids:
                for number, prompts in self._prompts[object_id].items():
                    video.add_new_points_or_box(
                        state,
                        number,
                        object_id,
                        points=prompts.points[0] / model.image_size,  # as shares
                        labels=prompts.labels[0].int(),
                        normalize_coords=False,
                    )
                    known[number, object_id] = passes[-1]
            passes.clear()
            for number, _, _ in video.propagate_in_video(state):
                asked = [object_id for object_id in ids if number not in self._prompts[object_id]]
                known |= {(number, object_id): each for object_id, each in zip(asked, passes, strict=True)}
                passes.clear()
                here = [object_id for object_id in ids if number >= min(self._prompts[object_id])]
                yield self._frame(number, here, [known[number, object_id] for object_id in here])

    @torch.no_grad()
    def _from_mask_to_mask(self) -> Iterator[VideoFrame]:
        model, before = self.predictor.model, dict[int, Prompts | None]()
        for number in range(min(min(frames) for frames in self._prompts.values()), len(self._frames)):
            self.predictor.set_image(self._frames[number])
            features = self.predictor.picture_features
            here, passes = [], []
            for object_id in sorted(self._prompts):
                if number < min(self._prompts[object_id]):
                    continue
                prompts = self._prompts[object_id].get(number) or before.get(object_id)
                here.append(object_id)
                decoded = None if prompts is None else model.backbone.decode(features, prompts)
                passes.append((decoded, 3 if number in self._prompts[object_id] else 1))
            answer = self._frame(number, here, passes)
            for object_id, mask in zip(here, answer.masks, strict=True):
                before[object_id] = self._follow(mask) if mask.any() else None
            yield answer

    def _follow(self, mask: np.ndarray) -> Prompts:
        """The prompt for the next frame from the mask in this one: its box, somewhat grown, and its middle."""
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        (height, width), frame = mask.shape, self.predictor.model.backbone.frame(mask.shape)
        corners = np.array([[columns[0], rows[0]], [columns[-1] + 1, rows[-1] + 1]], dtype=float)
        margin = GROWN / 2 * (corners[1] - corners[0])
        corners = np.clip(corners + np.stack([-margin, margin]), 0, (width, height))
        points = np.concatenate([corners, [central_pixel(mask)]]) * (frame[1] / width, frame[0] / height)
        device = self.predictor.device
        return Prompts(
            torch.tensor(points, dtype=torch.float32, device=device)[None], torch.tensor([[2, 3, 1]], device=device)
        )

    def _frame(self, number: int, ids: list[int], passes: list[tuple[Decoded | None, int]]) -> VideoFrame:
        """What the head says of the masks that SAM 2 chose."""
        blank = np.zeros(self._size, np.float32)
        rows = []
        for decoded, count in passes:
            if decoded is None:  # lost in an earlier frame
                rows.append((blank > 0, 0.0, 0.0, blank, blank))
                continue
            prediction = predict(decoded, self.predictor.model.head)
            token = (
                torch.zeros_like(decoded.iou[:, 0], dtype=torch.int64) if count == 1 else best_candidate(decoded.iou)
            )
            maps = prediction.maps(token[:, None], self._size)
            mask = upsample(prediction.logits[:, token[0]][:, None], self._size)[0, 0] > 0
            present = decoded.object_score[0, 0].float()
            rows.append(
                (
                    _array(mask & (present > 0)),
                    float(decoded.iou[0, token[0]]),
                    float(present.sigmoid()),
                    _array(maps.probability[0, 0]),
                    _array(maps.total[0, 0]),
                )
            )
        masks, scores, presence, probability, uncertainty = (np.stack(column) for column in zip(*rows, strict=True))
        doubt = np.where(masks.any(axis=(1, 2)), 1 - joint_iou(masks, probability), 1.0)
        floats = (each.astype(np.float32) for each in (scores, presence, probability, uncertainty, doubt))
        return VideoFrame(number, ids, masks, *floats)


@dataclass
class VideoReview:
    """What to look at again, over all frames of a video.

    add: each frame as it comes. doubt: per object, of its frames in order. to_prompt: the frame that is doubted most in
    every run of consecutive frames that are doubted by at least `threshold`, the most doubted first.
    """

    threshold: float = 0.4
    frames: dict[int, list[int]] = field(default_factory=dict)
    doubt: dict[int, list[float]] = field(default_factory=dict)

    def add(self, frame: VideoFrame) -> None:
        for object_id, doubt in zip(frame.object_ids, frame.doubt.tolist(), strict=True):
            self.frames.setdefault(object_id, []).append(frame.frame)
            self.doubt.setdefault(object_id, []).append(doubt)

    def extend(self, frames: Iterable[VideoFrame]) -> VideoReview:
        for frame in frames:
            self.add(frame)
        return self

    def mean_doubt(self) -> dict[int, float]:
        """Mean over frames, by object."""
        return {object_id: float(np.mean(doubt)) for object_id, doubt in self.doubt.items()}

    def to_prompt(self) -> list[tuple[int, int]]:
        """(frame, object id) to prompt again."""
        found = []
        for object_id, doubts in self.doubt.items():
            run: list[tuple[float, int]] = []
            for number, doubt in zip([*self.frames[object_id], -1], [*doubts, -1.0], strict=True):
                if doubt >= self.threshold:
                    run.append((doubt, number))
                elif run:
                    worst = max(run, key=lambda each: (each[0], -each[1]))
                    found.append((worst[0], worst[1], object_id))
                    run = []
        return [(number, object_id) for _, number, object_id in sorted(found, key=lambda each: (-each[0], each[1:]))]


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.cpu().numpy()
