"""Miniature trees in the native format of every data set, with its oddities, and the masks that were drawn."""

import csv
from pathlib import Path

import h5py
import numpy as np
from native_formats import (
    BOX,
    ELL,
    ELL_MASK,
    EMPTY,
    HEIGHT,
    OVER,
    RIGHT,
    RING,
    SMALL,
    WIDTH,
    coco_tree,
    code,
    corners,
    map_tree,
    number_map,
    png,
    rect,
    via_tree,
    write_image,
    write_json,
    write_map,
)
from PIL import Image


def trashcan(root):
    folder, names = root / "instance_version", ["vid_1_frame1.jpg", "vid_1_frame2.jpg", "vid_2_frame1.jpg"]
    return png("train", coco_tree(folder / "instances_train_trashcan.json", folder / "train", names))


def ishape(root):
    expected = {}
    for part in ("antenna", "branch", "fence", "hanger", "log", "wire"):
        folder = root / part / "val"
        pairs = [(folder / "image" / f"{n}.jpg", folder / "instance_map" / f"{n}.png") for n in "01"]
        found = map_tree(pairs, values=(1007, 40_000))[0]  # 16 bit
        numbers, masks = number_map((999, rect(*RIGHT)), *((int(value), mask) for value, mask in found.items()))
        write_map(pairs[0][1], numbers)  # a number below 1000 is no instance
        expected[f"val/{part}/0.png"] = {str(value): masks[value] for value in (1007, 40_000)}
    return expected


def zerowaste(root):
    folder = root / "splits_final_deblurred" / "train"
    return png("train", coco_tree(folder / "labels.json", folder / "data", ["01_a.PNG", "02_b.PNG", "03.PNG"]))


def lvis(root):
    names = ["000000000009.jpg", "000000000025.jpg", "000000000030.jpg"]
    stored = coco_tree(root / "lvis_v0.5_val.json", root / "val2017", names, lambda n: f"COCO_val2014_{n}")
    return png("val", stored)


def ndd20(root):
    above = via_tree(root / "ABOVE_LABELS.json", root / "ABOVE", ["1.jpg", "2.jpg"])
    below = via_tree(root / "BELOW_LABELS.json", root / "BELOW", ["1.jpg", "Tümmler.jpg"], regions=dict)
    return png("train/ABOVE", above) | png("train/BELOW", below)


def plittersdorf(root):
    names = ["a_0001.jpg", "b_0001.jpg", "c_0001.jpg"]
    for split in ("val", "test"):
        coco_tree(root / f"{split}.json", root / "images", [f"{split}{n}" for n in names])
    return png("train", coco_tree(root / "train.json", root / "images", names))


def timberseg(root):
    folder = root / "prescaled"
    names = ["a.png", "b.png", "c.png"]
    return png("train", coco_tree(folder / "coco_annotation.json", folder / "images", names, "images/{}".format))


def dram(root):
    names = ["realism/édouard manet/olympia", "unseen/a.b/c", "realism/x/empty"]
    pairs = [(root / "test" / f"{n}.jpg", root / "labels" / f"{n}.png") for n in names]
    found = map_tree(pairs, values=(3, 11))
    numbers, masks = number_map((255, rect(*OVER)), (5, rect(*BOX)))  # 255 is ignored
    write_map(pairs[1][1], numbers)
    return {f"test/{names[0]}.png": found[0], f"test/{names[1]}.png": {"5": masks[5]}}


def cityscapes(root):
    stems = ["bonn/bonn_000000_000001", "köln/köln_000000_000002"]
    for seed, stem in enumerate(stems):
        write_image(root / "leftImg8bit/val" / f"{stem}_leftImg8bit.png", seed)
    car, road = rect(*BOX), rect(0, 12, WIDTH, HEIGHT)
    # void, group of cars and a caravan are no objects; road and two cars are
    numbers, masks = number_map((4, ~EMPTY), (7, road), (26, rect(26, 0, 32, 4)), (26000, car), (26001, rect(*SMALL)))
    numbers[22, 2] = 29000
    masks[7] = numbers == 7
    write_map(root / "gtFine/val" / f"{stems[0]}_gtFine_instanceIds.png", numbers)
    write_map(root / "gtFine/val" / f"{stems[1]}_gtFine_instanceIds.png", EMPTY * 1)
    return {f"val/{stems[0]}.png": {str(v): numbers == v for v in (7, 26000, 26001)}}


def ade20k(root):
    folder = root / "ADE20K_2021_17_01/images/ADE/validation/urban/street"
    write_image(folder / "ADE_val_00000001.jpg")
    write_image(folder / "ADE_val_00000001/instance_000_ADE_val_00000001.png")  # amodal masks, not read

    def write(path, objects):
        pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        for number, instance, mask in objects:
            pixels[mask] = (number // 256 * 10, number % 256, instance)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)

    box, over, part = rect(*BOX), rect(*OVER), rect(5, 5, 8, 8)
    write(folder / "ADE_val_00000001_seg.png", [(2978, 1, box), (2978, 2, over)])
    write(folder / "ADE_val_00000001_parts_1.png", [(300, 1, part)])
    objects = {str(2978 * 256 + 1): box & ~over, str(2978 * 256 + 2): over, f"part1/{300 * 256 + 1}": part}
    return {"validation/urban/street/ADE_val_00000001.png": objects}


def hypersim(root):
    rows, expected = [], {}
    for scene, camera, frame, split in (("ai_001_001", "cam_00", 0, "train"), ("ai_020_001", "cam_01", 7, "val")):
        place = root / scene / "images"
        write_image(place / f"scene_{camera}_final_preview/frame.{frame:04d}.tonemap.jpg", frame)
        numbers = np.where(rect(*BOX), 300, -1)
        numbers[rect(*OVER)] = 1
        file = place / f"scene_{camera}_geometry_hdf5/frame.{frame:04d}.semantic_instance.hdf5"
        file.parent.mkdir(parents=True)
        with h5py.File(file, "w") as stream:
            stream["dataset"] = numbers.astype(np.int16)
        rows.append({"scene_name": scene, "camera_name": camera, "frame_id": frame, "split_partition_name": split})
        expected[f"{scene}/scene_{camera}/frame.{frame:04d}.png"] = {"1": numbers == 1, "300": numbers == 300}
    with open(root / "metadata_images_split_scene_v1.csv", "w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return {"train/ai_001_001/scene_cam_00/frame.0000.png": next(iter(expected.values()))}


def woodscape(root):
    for seed, name in enumerate(["00000_FV", "00001_MVL"]):
        write_image(root / "rgb_images" / f"{name}.png", seed)
        polygons = [corners(*BOX), ELL, [1, 1, 2, 2]] if seed == 0 else []
        entries = [
            {"tags": ["car"], "z_order": n, "id": "x", "segmentation": np.reshape(p, (-1, 2)).tolist()}
            for n, p in enumerate(polygons)
        ]
        content = {f"{name}.json": {"image_width": WIDTH, "image_height": HEIGHT, "annotation": entries}}
        write_json(root / "instance_annotations/instance_annotations" / f"{name}.json", content)
    return {"train/00000_FV.png": {"0": rect(*BOX), "1": ELL_MASK}}


def streets(root):
    folder = root / "vehicleannotations"
    file = folder / "annotations/vehicle-annotations.json"
    return png("train", via_tree(file, folder / "images", ["a-b-2018.jpg", "c.jpg"], regions=dict))


def ndispark(root):
    folder = root / "train"
    names = ["60_1.jpg", "60_2.jpg", "61_1.jpg"]
    night = root / "validation"
    coco_tree(night / "val_coco_annotations.json", night / "imgs", [f"n{name}" for name in names])
    return png("train", coco_tree(folder / "train_coco_annotations.json", folder / "imgs", names))


def doors(root):
    folder = root / "Segmentation/DS1/DS"
    for split, names in {"V": ["000001.png", "000002.png"], "T": ["000003.png"], "Te1": ["4.png"], "Te2": []}.items():
        for name in names:
            write_image(folder / "img" / name)
            write_map(folder / "mask" / name, 255 * (EMPTY if name == "000002.png" else RING))
        (folder / f"{split}.txt").write_text("".join(f"{name} \n" for name in names or ["4.png"]))
    return {"V/000001.png": {"000001": RING}}


def bbbc038(root):
    for place, masks in {"ab12": {"m1": rect(*BOX), "m2": rect(*OVER), "m3": EMPTY}, "cd34": {"m": EMPTY}}.items():
        write_image(root / "stage1_train" / place / "images" / f"{place}.png")
        for name, mask in masks.items():
            write_map(root / "stage1_train" / place / "masks" / f"{name}.png", 255 * mask)
    return {"stage1_train/ab12.png": {"m1": rect(*BOX), "m2": rect(*OVER)}}


def ibd(root):
    shapes = [{"points": np.reshape(p, (-1, 2)).tolist(), "label": "roof"} for p in (corners(*BOX), ELL)]
    shapes += [{"points": np.reshape(corners(*p), (-1, 2)).tolist(), "group_id": 5} for p in (OVER, SMALL)]
    write_image(root / "val" / "1.png")
    write_json(root / "val" / "1.json", {"shapes": shapes})
    return {"val/1.png": {"0": rect(*BOX), "1": ELL_MASK, "group5": rect(*OVER) | rect(*SMALL)}}


def pidray(root):
    names = ["xray_hard00001.png", "xray_hard00002.png", "xray_hard00003.png"]
    return png("test_hard", coco_tree(root / "annotations/xray_test_hard.json", root / "hard", names))


def ppdls(root):
    expected = {}
    for part in ("Ara2012", "Ara2013-Canon", "Tobacco"):
        stems = [root / "Plant" / part / f"{part.lower()}_plant00{n}" for n in (1, 2)]
        pairs = [(Path(f"{stem}_rgb.png"), Path(f"{stem}_label.png")) for stem in stems]
        expected[f"train/{part}/{stems[0].name}.png"] = map_tree(pairs, palette=True)[0]
    write_image(root / "Plant/Ara2012/ara2012_plant009_rgb.png")  # without leaves
    return expected


def gtea(root):
    for place in ("GTEA/Images/s1_0001.jpg", "GTEA/Images/s1_0002.jpg", "GTEA_GAZE_PLUS/Images/a/0001.jpg"):
        write_image(root / "hand2K_dataset" / place)
    folder = root / "hand2K_dataset/GTEA"
    touching = rect(3, 4, 8, 9) | rect(8, 9, 12, 12)  # at a corner: one hand
    other = rect(20, 2, 26, 8)
    write_map(folder / "Masks/s1_0001.png", np.where(touching, 255, np.where(other, 60, 10)))
    write_map(folder / "Masks/s1_0002.png", EMPTY * 1)
    write_map(root / "hand2K_dataset/GTEA_GAZE_PLUS/Masks/a/0001.png", 255 * other)  # another split
    return {"GTEA/s1_0001.png": {"1": other, "2": touching}}  # in reading order


def egohos(root):
    folder = root / "train"
    names = ["ego4d_ab_1", "THU_2", "escape_thursday_3", "ego4d_empty"]
    (folder / "label").mkdir(parents=True)
    (folder / "label" / "._ego4d_ab_1.png").write_bytes(b"left by a file manager")
    found = map_tree([(folder / "image" / f"{n}.jpg", folder / "label" / f"{n}.png") for n in names], values=(1, 8))
    return {f"train/{name}.png": objects for name, objects in zip(names[:2], found, strict=False)}


def visor(root):
    frames = root / "GroundTruth-SparseAnnotations/rgb_frames/val/P01/P01_107"
    outer, inner = (2, 2, 20, 18), (6, 6, 12, 12)

    def entity(key, *segments):
        return {"id": key, "name": "hand", "segments": [np.reshape(s, (-1, 2)).tolist() for s in segments]}

    objects = [entity("k1", corners(*outer), corners(*inner)), entity("k2", corners(*BOX)), entity("k3", [1, 1])]
    entries = []
    for number, (sequence, chosen) in enumerate([("s1", []), ("s1", objects), ("s1", objects), ("s2", objects[1:2])]):
        name = f"P01_107_frame_{number:010d}.jpg"
        write_image(frames / name, number)
        image = {"name": name, "image_path": f"P01_107/{sequence}/{name}", "subsequence": sequence}
        entries.append({"image": image, "annotations": chosen})
    file = root / "GroundTruth-SparseAnnotations/annotations/val/P01_107.json"
    write_json(file, {"video_annotations": entries[::-1]})  # not in order
    return {
        "val/P01_107/P01_107_frame_0000000001.png": {"k1": RING, "k2": rect(*BOX)},
        "val/P01_107/P01_107_frame_0000000003.png": {"k2": rect(*BOX)},
    }


def ovis(root):
    names = [f"ab12/img_000000{n}.jpg" for n in (1, 2, 3)]
    for name in names:
        write_image(root / "train" / name)
    tracks = [
        {"id": 1, "video_id": 5, "segmentations": [None, code(RING), code(RING, plain=True)]},
        {"id": 2, "video_id": 5, "segmentations": [None, None, code(rect(*BOX))]},
    ]
    videos = [{"id": 5, "file_names": names, "width": WIDTH, "height": HEIGHT, "length": 3}]
    write_json(root / "annotations_train.json", {"videos": videos, "annotations": tracks})
    return {"train/ab12/img_0000002.png": {"1": RING}}


def _clip(folder, depth, clip):
    images, masks = folder / "JPEGImages" / depth / clip, folder / "Annotations" / depth / clip
    pairs = [(images / f"0000{n}.jpg", masks / f"0000{n}.png") for n in (1, 2)]
    return map_tree(pairs, values=(1, 4), palette=True)[0]


def mose(root):
    return {f"train/{clip}/00001.png": _clip(root / "train", "", clip) for clip in ("0a1b", "ff00")}


def davis(root):
    (root / "ImageSets/2017").mkdir(parents=True)
    (root / "ImageSets/2017/val.txt").write_text("bear\n")
    _clip(root, "480p", "other")
    return {"val/bear/00001.png": _clip(root, "480p", "bear")}


def coco(root):
    file, names = root / "annotations/instances_val2017.json", ["000000000139.jpg", "000000000285.jpg", "3.jpg"]
    return png("val", coco_tree(file, root / "val2017", names))


TREES = {
    build.__name__: build
    for build in (trashcan, ishape, zerowaste, lvis, ndd20, plittersdorf, timberseg, dram, cityscapes, ade20k, hypersim,
                  woodscape, streets, ndispark, doors, bbbc038, ibd, pidray, ppdls, gtea, egohos, visor, ovis, mose,
                  davis, coco)
}  # fmt: skip
