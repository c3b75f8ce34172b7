"""Tiny data sets in the exact layouts their owners ship: directory names, file formats, fields and oddities."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

VOC_PALETTE = [v for i in range(256) for v in ((i * 37) % 256, (i * 91) % 256, (i * 151) % 256)]


def picture(seed: int, height: int = 24, width: int = 32) -> np.ndarray:
    """[H, W, 3] uint8: a smooth gradient with a patch, different for every seed."""
    rng = np.random.default_rng(seed)
    ramp = (
        np.linspace(0, 1, height)[:, None, None] * rng.integers(60, 200, 3) + np.linspace(0, 50, width)[None, :, None]
    )
    image = ramp.astype(np.uint8)
    top, left = rng.integers(0, height // 2), rng.integers(0, width // 2)
    image[top : top + height // 3, left : left + width // 3] = rng.integers(0, 255, 3)
    return image


def save_jpeg(path: Path, seed: int, height: int = 24, width: int = 32, mode: str = "RGB") -> Path:
    """A JPEG in RGB, grey ("L") or "CMYK"."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed, height, width)).convert(mode).save(path, "JPEG", quality=95)
    return path


def save_png(path: Path, values: np.ndarray, palette: bool = False) -> Path:
    """A mask or depth PNG: 8-bit grey or palette, or 16-bit."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    if palette:
        image.putpalette(VOC_PALETTE)
    image.save(path)
    return path


def mask(seed: int, classes: int, height: int = 24, width: int = 32) -> np.ndarray:
    """[H, W] uint8 in blocks of 4 px, values 0 … classes-1."""
    blocks = np.random.default_rng(seed).integers(0, classes, ((height + 3) // 4, (width + 3) // 4))
    return np.kron(blocks, np.ones((4, 4), int))[:height, :width].astype(np.uint8)


def ade20k(data: Path, train: int = 4, test: int = 3) -> Path:
    """`ADEChallengeData2016`: labels 0 (other) … 150 in grey PNGs."""
    root = data / "ade20k" / "ADEChallengeData2016"
    for folder, word, count in (("training", "train", train), ("validation", "val", test)):
        for i in range(count):
            name = f"ADE_{word}_{i + 1:08d}"
            save_jpeg(root / "images" / folder / f"{name}.jpg", i, 24 + 4 * i, 32)
            save_png(root / "annotations" / folder / f"{name}.png", mask(i, 151, 24 + 4 * i, 32))
    (root / "objectInfo150.txt").write_text("Idx\tRatio\tTrain\tVal\tStuff\tName\n")
    (root / "sceneCategories.txt").write_text("ADE_train_00000001 airport_terminal\n")
    return root


def voc2012(data: Path, train: int = 3, test: int = 2, augmented: int = 2) -> Path:
    """`VOCdevkit/VOC2012` with palette PNGs and their 255 border; SBD's `.mat` masks beside it."""
    from scipy.io import savemat

    root = data / "voc2012" / "VOCdevkit" / "VOC2012"
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    names = {"train": [f"2007_{i:06d}" for i in range(train)], "val": [f"2008_{i:06d}" for i in range(test)]}
    extra = [f"2009_{i:06d}" for i in range(augmented)]
    for word, group in names.items():
        (lists / f"{word}.txt").write_text("".join(f"{n}\n" for n in group))
        for n in group:
            labels = mask(int(n[-6:]), 21)
            labels[0] = labels[-1] = labels[:, 0] = labels[:, -1] = 255
            save_png(root / "SegmentationClass" / f"{n}.png", labels, palette=True)
    for i, n in enumerate([*names["train"], *names["val"], *extra]):
        save_jpeg(root / "JPEGImages" / f"{n}.jpg", i)
    sbd = data / "voc2012" / "benchmark_RELEASE" / "dataset"
    (sbd / "cls").mkdir(parents=True)
    for n in [*extra, names["val"][0]]:
        record = np.zeros((1, 1), dtype=[("Boundaries", "O"), ("Segmentation", "O"), ("CategoriesPresent", "O")])
        record["Segmentation"][0, 0] = mask(int(n[-6:]) + 50, 21)
        savemat(sbd / "cls" / f"{n}.mat", {"GTcls": record})
    (sbd / "train.txt").write_text("".join(f"{n}\n" for n in extra))
    (sbd / "val.txt").write_text(f"{names['val'][0]}\n")
    return root


def pascal_context(data: Path, count: int = 3, raw: bool = False) -> Path:
    """`VOCdevkit/VOC2010` with mmsegmentation's masks, or the authors' 459-label `trainval/*.mat` (`raw`)."""
    from scipy.io import savemat

    root = data / "pascal_context" / "VOCdevkit" / "VOC2010"
    names = [f"2008_{i:06d}" for i in range(count)]
    listing = root / "ImageSets" / ("Main" if raw else "SegmentationContext") / "val.txt"
    listing.parent.mkdir(parents=True)
    listing.write_text("".join(f"{n}\n" for n in names))
    for i, n in enumerate(names):
        save_jpeg(root / "JPEGImages" / f"{n}.jpg", i)
        if raw:
            labels = np.kron(np.array([[2, 9], [1, 458]]), np.ones((12, 16))).astype(np.uint16)
            (data / "pascal_context" / "trainval").mkdir(exist_ok=True)
            savemat(data / "pascal_context" / "trainval" / f"{n}.mat", {"LabelMap": labels})
        else:
            save_png(root / "SegmentationClassContext" / f"{n}.png", mask(i, 60))
    return root


Strokes = list[tuple[int, np.ndarray]]  # (category, [H, W] bool) of each annotation, in the file's order


def pascal_detail(path: Path, pictures: dict[str, tuple[str, Strokes]], **more: object) -> Path:
    """`trainval_merged.json` of PASCAL in Detail: stem -> (phase, annotations), with the fields its API reads."""
    from pycocotools import mask as runs

    images, segments = [], list[dict[str, Any]]()
    for stem, (phase, strokes) in pictures.items():
        number = int(stem[:4] + stem[5:])
        height, width = strokes[0][1].shape if strokes else (24, 32)
        image = {"image_id": number, "file_name": f"{stem}.jpg", "height": height, "width": width, "phase": phase}
        images.append({**image, "date_captured": "31-Oct-2008"})
        for category, inside in strokes:
            run = runs.encode(np.asfortranarray(inside.astype(np.uint8)))
            mask_of = {"size": [int(n) for n in run["size"]], "counts": run["counts"].decode()}
            ids = {"id": len(segments) + 1, "image_id": number, "category_id": category, "iscrowd": 0}
            area = {"area": int(inside.sum()), "bbox": [0, 0, width, height], "parts": []}
            segments.append({**ids, **area, "segmentation": mask_of})
    kinds = sorted({segment["category_id"] for segment in segments})
    named = [{"category_id": c, "name": str(c), "supercategory": "object", "onlysemantic": 0} for c in kinds]
    rest: dict[str, object] = {"info": {}, "categories": named}
    rest |= {"parts": [], "annos_occlusion": [], "annos_boundary": []}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**rest, "images": images, "annos_segmentation": segments, **more}))
    return path


def karpathy_json(path: Path, images: list[dict]) -> None:
    """Karpathy's `dataset_*.json`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "dataset": path.stem.removeprefix("dataset_")}))


def coco(data: Path, counts: tuple[int, ...] = (5, 7, 6), annotations: bool = True) -> Path:
    """val2014 pictures, Karpathy's split and COCO's own captions (marked "official")."""
    root = data / "coco"
    images, notes, pictures, number = [], [], [], 100
    for i, count in enumerate((*counts, 5)):
        name = f"COCO_val2014_{i:012d}.jpg"
        save_jpeg(root / "val2014" / name, i)
        ids = list(range(number, number + count))
        number += count
        texts = [f"A thing {i} seen as {j}." for j in range(count)]
        sentences = [{"raw": t, "tokens": t.lower().split(), "sentid": s} for t, s in zip(texts, ids)]
        split = "test" if i < len(counts) else "restval"
        images.append(
            {"filepath": "val2014", "filename": name, "imgid": i, "cocoid": i, "split": split, "sentids": ids}
            | {"sentences": sentences}
        )
        pictures.append({"id": i, "file_name": name, "height": 24, "width": 32})
        notes += [{"id": s, "image_id": i, "caption": t + " (official)"} for t, s in zip(texts, ids)]
    karpathy_json(root / "dataset_coco.json", images)
    if annotations:
        (root / "annotations").mkdir()
        captions = {"info": {}, "licenses": [], "images": pictures, "annotations": notes}
        (root / "annotations" / "captions_val2014.json").write_text(json.dumps(captions))
    return root


def flickr30k(data: Path, test: int = 3) -> Path:
    """`flickr30k-images` and Karpathy's split."""
    root = data / "flickr30k"
    images = []
    for i in range(test + 2):
        name = f"{1000 + i}.jpg"
        save_jpeg(root / "flickr30k-images" / name, i)
        sentences = [{"raw": f"Picture {i}, caption {j} .", "imgid": i, "sentid": 5 * i + j} for j in range(5)]
        split = "test" if i < test else "train"
        images.append({"filename": name, "imgid": i, "split": split, "sentences": sentences, "sentids": list(range(5))})
    karpathy_json(root / "dataset_flickr30k.json", images)
    return root


def docci(data: Path) -> Path:
    """`docci_descriptions.jsonlines` and `images/`."""
    root = data / "docci"
    rows = []
    for i, split in enumerate(("train", "train", "test", "test", "test", "qual_dev")):
        name = f"{split}_{i:05d}.jpg"
        save_jpeg(root / "images" / name, i)
        rows.append(
            {"example_id": name[:-4], "split": split, "image_file": name, "description": f"Long text {i}.\nMore"}
        )
    (root / "docci_descriptions.jsonlines").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return root


SYNSETS = ("n01440764", "n01443537", "n15075141")  # tench 0, goldfish 1, toilet paper 999


def imagenet(data: Path, per_class: int = 2) -> Path:
    """`{train,val}/<synset>/*.JPEG` with a grey and a CMYK file among them."""
    root = data / "imagenet1k"
    for split in ("train", "val"):
        for c, synset in enumerate(SYNSETS):
            for i in range(per_class):
                name = f"{synset}_{i}.JPEG" if split == "train" else f"ILSVRC2012_val_{c * per_class + i + 1:08d}.JPEG"
                mode = {(0, 0): "L", (1, 1): "CMYK"}.get((c, i), "RGB")
                save_jpeg(root / split / synset / name, 10 * c + i + (split == "val") * 100, mode=mode)
    return root


def nyu_bts(data: Path, train: int = 3, test: int = 2) -> Path:
    """The BTS layout: JPEG and 16-bit depth PNG in millimetres with holes, and its list files."""
    root = data / "nyuv2" / "nyu_depth_v2"
    for split, folder, room, count in (
        ("train", "sync", "kitchen_0028b", train),
        ("test", "official_splits/test", "kitchen", test),
    ):
        rows = []
        for i in range(count):
            save_jpeg(root / folder / room / f"rgb_{i:05d}.jpg", i)
            depth = np.linspace(500, 9990, 24 * 32).reshape(24, 32).astype(np.uint16)
            depth[:3] = 0
            save_png(root / folder / room / f"sync_depth_{i:05d}.png", depth)
            rows.append(f"/{room}/rgb_{i:05d}.jpg /{room}/sync_depth_{i:05d}.png 518.8579\n")
        (root / f"nyudepthv2_{split}_files_with_gt.txt").write_text("".join(rows))
    return root


def nyu_labelled(data: Path, count: int = 5) -> Path:
    """`nyu_depth_v2_labeled.mat` (HDF5, transposed), `splits.mat`, GeoNet's `.mat` files and Ladicky's normals."""
    import h5py
    from scipy.io import savemat

    root = data / "nyuv2"
    root.mkdir(parents=True, exist_ok=True)
    pictures = np.stack([picture(i) for i in range(count)])
    depths = np.stack([np.full((24, 32), 1.0 + i, np.float32) for i in range(count)])
    raw = depths.copy()
    raw[:, :2] = 0
    with h5py.File(root / "nyu_depth_v2_labeled.mat", "w") as f:
        f["images"] = pictures.transpose(0, 3, 2, 1)
        f["depths"] = depths.transpose(0, 2, 1)
        f["rawDepths"] = raw.transpose(0, 2, 1)
    rows = {"trainNdxs": np.array([[3], [4], [5]], np.uint16), "testNdxs": np.array([[1], [2]], np.uint16)}
    savemat(root / "splits.mat", rows)
    normals = np.zeros((count, 24, 32, 3), np.float32)
    normals[..., 2] = -2.0  # not unit: readers must normalise
    (root / "surfacenormal_metadata").mkdir(exist_ok=True)
    np.save(root / "surfacenormal_metadata" / "all_normals.npy", normals)
    (root / "nyu_geonet").mkdir(exist_ok=True)
    mean = 2 * np.array([122.175, 116.169, 103.508])
    for i in range(2):
        depth = np.full((24, 32), 2.0)
        depth[0], depth[1] = 0, 11
        norm = np.zeros((24, 32, 3))
        norm[..., 1] = -1
        name = root / "nyu_geonet" / f"kitchen_0028b_{i}-1.mat"
        savemat(name, {"img": picture(i).astype(np.float64) - mean, "depth": depth, "norm": norm})
    return root


def navi(data: Path, views: int = 5) -> Path:
    """`navi_v1/<object>/…` with inverse-depth PNGs, masks and annotations; one object without a wild set."""
    root = data / "navi" / "navi_v1"
    for obj, scenes in (("dino", ("multiview_00_pixel_5", "wild_set")), ("soap", ("multiview_00_canon",))):
        for s, scene in enumerate(scenes):
            rows = []
            for i in range(views):
                height, width = (60, 80) if i % 2 else (80, 60)
                save_jpeg(root / obj / scene / "images" / f"{i:03d}.jpg", 10 * s + i, height, width)
                save_png(root / obj / scene / "depth" / f"{i:03d}.png", navi_code(height, width))
                save_png(
                    root / obj / scene / "masks" / f"{i:03d}.png", (navi_code(height, width) > 0).astype(np.uint8) * 255
                )
                half = np.radians(20 * i) / 2
                camera = {
                    "q": [np.cos(half), 0, np.sin(half), 0],
                    "t": [0, 0, 500],
                    "focal_length": 70.0,
                    "camera_model": "pixel_5",
                }
                rows.append(
                    {"object_id": obj, "camera": camera, "filename": f"{i:03d}.jpg", "image_size": [height, width]}
                    | {"scene_name": scene, "split": "train", "occluded": False}
                )
            (root / obj / scene / "annotations.json").write_text(json.dumps(rows))
    return root


BALL = 120.0, 500.0  # millimetres: its radius, and how far its centre is from every camera


def navi_views(data: Path, views: int = 6) -> Path:
    """`navi` whose dino is a ball that is seen from all around: view i is turned by 25° · i about the vertical."""
    root = navi(data)
    for scene in ("wild_set", "multiview_00_pixel_5"):
        navi_ball(root / "dino" / scene, views)
    return root


def navi_ball(scene: Path, views: int) -> None:
    """One collection of `navi_views`."""
    rows, (radius, away), focal = [], BALL, 140.0
    for i in range(views):
        height, width = (120, 160) if i % 2 else (160, 120)
        save_jpeg(scene / "images" / f"{i:03d}.jpg", 20 + i, height, width)
        x = (np.arange(width) + 0.5 - width / 2)[None] / focal
        y = (np.arange(height) + 0.5 - height / 2)[:, None] / focal
        square = x * x + y * y + 1
        root_of = away**2 - square * (away**2 - radius**2)
        depth = (away - np.sqrt(np.maximum(root_of, 0))) / square
        code = np.where(root_of > 0, np.round(655350 / depth), 0).astype(np.uint16)
        save_png(scene / "depth" / f"{i:03d}.png", code)
        half = np.radians(25 * i) / 2
        camera = {"q": [np.cos(half), 0, np.sin(half), 0], "t": [0, 0, away], "focal_length": focal}
        rows.append({"object_id": "dino", "camera": camera, "filename": f"{i:03d}.jpg", "image_size": [height, width]})
    (scene / "annotations.json").write_text(json.dumps(rows))


def navi_code(height: int, width: int) -> np.ndarray:
    """[H, W] uint16: a flat patch 500 mm away, facing the camera, on a background of 0."""
    code = np.zeros((height, width), np.uint16)
    code[20:50, 25:45] = round(65535 * 10 / 500)
    return code


def spair(data: Path, pictures: int = 4) -> Path:
    """`SPair-71k`: ordered pairs of the pictures of two categories, with between two and five points."""
    root = data / "spair" / "SPair-71k"
    number = 0
    for c, category in enumerate(("bird", "cat")):
        names = [f"2008_{10 * c + i:06d}" for i in range(pictures)]
        sizes = [(40 + 4 * i, 60 - 6 * i) for i in range(pictures)]  # (width, height)
        for i, name in enumerate(names):
            save_jpeg(root / "JPEGImages" / category / f"{name}.jpg", 10 * c + i, *sizes[i][::-1])
        for i, j in ((i, j) for i in range(pictures) for j in range(pictures) if i != j):
            number += 1
            rng = np.random.default_rng(number)
            ids = sorted(rng.permutation(8)[: 2 + number % 4].tolist())
            first = rng.integers(1, np.array(sizes[i]) - 1, (len(ids), 2))
            moved = first / sizes[i] * sizes[j] + rng.integers(-3, 4, first.shape)
            points = [first.tolist(), np.clip(moved, 0, np.array(sizes[j]) - 1).astype(int).tolist()]
            boxes = [[2, 3, sizes[k][0] - 9, sizes[k][1] - 5] for k in (i, j)]
            row = {
                "filename": f"{number:06d}-{names[i]}-{names[j]}:{category}",
                "category": category,
                "kps_ids": [str(k) for k in ids],
                "mirror": 0,
                "viewpoint_variation": number % 3,
                "scale_variation": 0,
                "truncation": 0,
                "occlusion": 0,
            }
            for side, k, of, box in (("src", i, points[0], boxes[0]), ("trg", j, points[1], boxes[1])):
                row |= {f"{side}_imname": f"{names[k]}.jpg", f"{side}_imsize": [*sizes[k], 3]}
                row |= {f"{side}_bndbox": box, f"{side}_kps": of, f"{side}_pose": "Frontal"}
            path = root / "PairAnnotation" / "test" / f"{row['filename']}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(row))
    return root


def uned(data: Path) -> Path:
    """`info_files/<domain>/*.json` and `images/`, all eight domains, four queries each."""
    root = data / "uned"
    folders = {
        "food2k": "food2k/Food2k_complete/{c}",
        "cars": "cars/car_ims",
        "sop": "sop/chair_final",
        "inshop": "deepfashion/inshop/img/{c}",
        "inat": "inat/iNaturalist/train_val2018/{c}",
        "met": "met/MET/{c}",
        "gldv2": "gldv2/images/index/{c}",
        "rp2k": "rp2k/all/test/饮料{c}",
    }
    for d, (name, folder) in enumerate(folders.items()):
        rows: dict[str, list[Any]] = {"test": [], "index": []}
        for i in range(4):
            path = f"{folder.format(c=i // 2)}/{i}.jpg"
            save_jpeg(root / "images" / path, 100 * d + i)
            rows["test"].append({"path": path, "class_id": i // 2})
        if name in ("inshop", "met", "gldv2"):
            for i in range(6):
                path = f"{folder.format(c=i // 2)}/index_{i}.jpg"
                save_jpeg(root / "images" / path, 100 * d + 50 + i)
                rows["index"].append({"path": path, "class_id": i // 2})
        if name == "gldv2":
            rows["test"][0]["class_id"] = [0, 1]
        for split, entries in rows.items():
            if entries:
                file = root / "info_files" / name / f"{split}.json"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(json.dumps(entries))
    return root
