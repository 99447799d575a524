"""Small data sets in the published formats, for the loaders that are timed."""

import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from activelr_service.data.cifar import LAYOUTS

PHOTOGRAPH = (500, 375)  # width and height of ImageNet's mean
WORDS = ("the", "of", "and", "a", "in", "to", "was", "on", "as", "for", "by", "with", "that", "it", "from", "his", "at")


def photographs(root: Path) -> dict[str, Any]:
    """JPEGs of the size of ImageNet's mean, smooth as photographs are."""
    rng = np.random.default_rng(0)
    for split, name in ((split, name) for split in ("train", "val") for name in ("a", "b")):
        (root / split / name).mkdir(parents=True)
        for index in range(48):
            _write_photograph(root / split / name / f"{index}.jpg", rng)
    return {"type": "imagefolder", "root": str(root), "image_size": 224}


def cifar(root: Path) -> dict[str, Any]:
    """CIFAR-10 with 1,000 random images a file."""
    layout, rng = LAYOUTS["cifar10"], np.random.default_rng(0)
    folder = root / layout.folder
    folder.mkdir(parents=True)
    for file in (*layout.train, *layout.test):
        images = rng.integers(0, 255, (1000, 3072), dtype=np.uint8)
        content = {b"data": images, layout.labels.encode(): [index % 10 for index in range(1000)]}
        (folder / file).write_bytes(pickle.dumps(content))
    names = [f"class {index}".encode() for index in range(10)]
    (folder / layout.meta).write_bytes(pickle.dumps({layout.names.encode(): names}))
    return {"type": "cifar10", "root": str(root)}


def text(root: Path) -> dict[str, Any]:
    """Articles as WikiText has them."""
    root.mkdir()
    rng = random.Random(0)  # noqa: S311 - no secret depends on it
    for split, articles in (("train", 24), ("valid", 4), ("test", 4)):
        lines = []
        for number in range(articles):
            lines += ["", f" = Article {number} = ", ""]
            lines += [f" {' '.join(rng.choices(WORDS, k=60))} . " for _ in range(4)]
        (root / f"wiki.{split}.tokens").write_text("\n".join(lines) + "\n")
    return {"type": "text", "root": str(root), "block_size": 200, "vocab_size": 300}


def voc(root: Path) -> dict[str, Any]:
    """A devkit of PASCAL VOC, with two objects in each image."""
    folder, rng = root / "VOCdevkit" / "VOC2007", np.random.default_rng(0)
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / part).mkdir(parents=True)
    box = "<bndbox><xmin>40</xmin><ymin>40</ymin><xmax>200</xmax><ymax>220</ymax></bndbox><difficult>0</difficult>"
    objects = "".join(f"<object><name>{name}</name>{box}</object>" for name in ("cat", "dog"))
    size = f"<size><width>{PHOTOGRAPH[0]}</width><height>{PHOTOGRAPH[1]}</height><depth>3</depth></size>"
    for split, count in (("train", 96), ("val", 1)):
        names = [f"{split}_{index:06d}" for index in range(count)]
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        for name in names:
            _write_photograph(folder / "JPEGImages" / f"{name}.jpg", rng)
            (folder / "Annotations" / f"{name}.xml").write_text(f"<annotation>{size}{objects}</annotation>\n")
    return {"type": "voc", "root": str(root), "years": ["2007"]}


def table(root: Path) -> dict[str, Any]:
    """20,000 rows of 20 numbers."""
    root.mkdir()
    values = np.random.default_rng(0).normal(size=(20_000, 20))
    names = ",".join(f"c{index}" for index in range(20))
    np.savetxt(root / "t.csv", values, delimiter=",", header=names, comments="")
    return {"type": "table", "path": str(root / "t.csv"), "target": "c0"}


def _write_photograph(path: Path, rng: np.random.Generator) -> None:
    small = Image.fromarray(rng.integers(0, 255, (25, 33, 3), dtype=np.uint8))
    small.resize(PHOTOGRAPH, Image.Resampling.BICUBIC).save(path, quality=90)
