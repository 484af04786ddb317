"""Egocentric: GTEA, EgoHOS, VISOR, OVIS."""

from collections.abc import Iterator
from pathlib import Path

from ruac.base.errors import RuacError, keys_of
from ruac.base.files import read_json
from ruac.data.domains.card import Card, both
from ruac.data.domains.coded import Coded, list_of, video
from ruac.data.domains.maps import components, paired_maps
from ruac.data.domains.picture import Picture, picture_id
from ruac.data.domains.places import files_in, image_in, locate
from ruac.data.sample import check_inside

EVERY = "-frames"  # after the name of a split: every frame instead of the first
EGOHOS_SOURCES = ("ego4d", "thu")  # of epic, escape, thu and ego4d, the beginnings of the file names


def _gtea(root: Path, split: str) -> Iterator[Picture]:
    masks = locate(root, f"{split}/Masks")
    return paired_maps(masks, masks.with_name("Images"), split, read=components)


def _egohos(root: Path, split: str) -> Iterator[Picture]:
    folder = locate(root, f"{split}/label").parent
    pictures = list(paired_maps(folder / "label", folder / "image", split))
    used = [picture for picture in pictures if picture.path.name.lower().startswith(EGOHOS_SOURCES)]
    if not used:
        raise RuacError(f"{folder / 'image'}: no name begins with ego4d or thu, found {pictures[0].path.name}")
    return iter(used)


def _visor(root: Path, split: str) -> Iterator[Picture]:
    part = split.removesuffix(EVERY)
    annotations = locate(root, f"GroundTruth-SparseAnnotations/annotations/{part}")
    frames = annotations.parent.parent / "rgb_frames" / part
    files = files_in(annotations, ".json")
    if not files:
        raise RuacError(f"{annotations}: no JSON file, expected one per video")
    for file in files:
        images, seen = frames / file.stem.split("_")[0] / file.stem, set()
        if not images.is_dir():
            raise RuacError(f"{images}: frames not found; unpack {images}.zip into a folder of its name")
        entries = list_of(read_json(file), "video_annotations", file)
        with keys_of(str(file)):
            entries = sorted(entries, key=lambda entry: entry["image"]["name"])
        for entry in entries:
            check_inside(entry["image"]["name"], file)
            with keys_of(f"{file}: {entry['image']['name']}"):
                name, sequence = entry["image"]["name"], entry["image"]["subsequence"]
                first = sequence not in seen
                objects = [(str(o["id"]), [_flat(segment) for segment in o["segments"]]) for o in entry["annotations"]]
            if objects and (split.endswith(EVERY) or first):
                seen.add(sequence)
                coded = Coded(file, tuple(objects), holes=True)
                yield Picture(picture_id(part, f"{file.stem}/{name}"), image_in(images, name, file.name), coded)


def _flat(points: list) -> list[float]:
    return [coordinate for point in points for coordinate in point]


def _ovis(root: Path, split: str) -> Iterator[Picture]:
    part = split.removesuffix(EVERY)
    file = locate(root, f"annotations_{part}.json")
    return video(file, file.parent / part, part, every=split.endswith(EVERY))


EGOCENTRIC = (
    Card(
        name="gtea",
        title="Georgia Tech Egocentric Activity, hand masks",
        group="Egocentric",
        page="https://cbs.ic.gatech.edu/fpv/",
        licence="see the page",
        size="663 images in GTEA, 1,115 in GTEA_GAZE_PLUS",
        version="hand2K_dataset.zip",
        tree="GTEA/Images/*.jpg, GTEA/Masks/*.png; GTEA_GAZE_PLUS/ is another split",
        rule="connected part of the mask above a tenth of full brightness, as the authors threshold it; hands that "
        "touch are one. The SAM paper's 652 images fit the 663 of the folder GTEA, less those without a hand. "
        "LabelMe XML files "
        "beside the masks (of 663 of the 1,115 pictures) separate hands that touch; they are not read",
        splits=both("GTEA"),
        sam=(652, 1208),
        verified="an inventory of the archive and public loaders for the folders; the authors' loader for the "
        "threshold. The values of the masks from memory",
        pictures=_gtea,
    ),
    Card(
        name="egohos",
        title="EgoHOS",
        group="Egocentric",
        page="https://github.com/owenzlz/EgoHOS",
        licence="none stated",
        size="4.5 GB",
        version="ECCV 2022",
        tree="train/image/*.jpg, train/label/*.png",
        rule="value 1-8 of the label map: a hand or an interacting object; only Ego4D and THU-READ images",
        splits=both("train"),
        sam=(2940, 9961),
        verified="the authors' README for folders and values, and their script that names the files by source "
        "(https://github.com/owenzlz/EgoHOS, preprocess_script/merge_raw_data.py)",
        pictures=_egohos,
    ),
    Card(
        name="visor",
        title="EPIC-KITCHENS VISOR",
        group="Egocentric",
        page="https://epic-kitchens.github.io/VISOR/",
        licence="CC BY-NC 4.0",
        size="not known",
        version="GroundTruth-SparseAnnotations",
        tree="GroundTruth-SparseAnnotations/annotations/val/P01_107.json, rgb_frames/val/P01/P01_107/*.jpg (unpacked)",
        rule="entity: all its segments, segments inside segments are holes. First annotated frame of each "
        "subsequence (ruac), every frame (sam1)",
        splits={"ruac": ("val",), "sam1": ("val" + EVERY,)},
        sam=(1864, 10141),
        verified="the authors' VISOR-VIS (https://github.com/epic-kitchens/VISOR-VIS, vis.py), which fills an "
        "entity's segments by the even-odd rule, and public loaders; subsequence as the unit is our reading",
        pictures=_visor,
    ),
    Card(
        name="ovis",
        title="Occluded Video Instance Segmentation",
        group="Egocentric",
        page="https://songbai.site/ovis/",
        licence="CC BY-NC-SA 4.0",
        size="607 training videos",
        version="train",
        tree="annotations_train.json, train/VIDEO/*.jpg",
        rule="track; first frame that shows one (ruac), every frame (sam1)",
        splits={"ruac": ("train",), "sam1": ("train" + EVERY,)},
        sam=(2044, 10011),
        verified="YOLOV's converter for names and keys (https://github.com/YuHengsss/YOLOV, data/datasets/ovis.py); "
        "public loaders for the folders, of YouTube-VIS for the codes, whose real areas were compared",
        pictures=_ovis,
    ),
)
