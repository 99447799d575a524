"""Writes a small devkit in PASCAL VOC's published format: colored rectangles on gray are the objects."""

import numpy as np
from PIL import Image

COLORS = {"cat": (220, 30, 30), "dog": (30, 60, 220), "person": (30, 200, 60)}


def write_voc(root, year="2007", sets=(("train", 8), ("val", 4)), size=(64, 48), objects=2, seed=0):
    """Write ``root/VOCdevkit/VOC{year}`` and return that folder. ``size`` is (width, height); of every image's objects
    the last is marked difficult if there is more than one."""
    folder = root / "VOCdevkit" / f"VOC{year}"
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for image_set, count in dict(sets).items():
        names = [f"{year}_{image_set}_{index:06d}" for index in range(count)]
        (folder / "ImageSets" / "Main" / f"{image_set}.txt").write_text("".join(f"{name} \n" for name in names))
        for name in names:
            found = [_random_object(rng, size) for _ in range(objects)]
            draw(folder / "JPEGImages" / f"{name}.jpg", size, found)
            annotate(folder / "Annotations" / f"{name}.xml", size, found, difficult=[i > 0 for i in range(objects)])
    return folder


def draw(path, size, objects):
    pixels = np.full((size[1], size[0], 3), 128, dtype=np.uint8)
    for name, (xmin, ymin, xmax, ymax) in objects:
        pixels[ymin - 1 : ymax, xmin - 1 : xmax] = COLORS[name]
    Image.fromarray(pixels).save(path, quality=95)


def annotate(path, size, objects, difficult=()):
    """``objects``: (class name, (xmin, ymin, xmax, ymax)), pixels counted from 1, the last included."""
    text = f"<annotation>\n\t<folder>VOC</folder>\n\t<filename>{path.stem}.jpg</filename>\n"
    text += f"\t<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>\n"
    for index, (name, box) in enumerate(objects):
        sides = "".join(f"<{s}>{v}</{s}>" for s, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
        flag = int(index < len(difficult) and difficult[index])
        text += f"\t<object>\n\t\t<name>{name}</name>\n\t\t<pose>Left</pose>\n\t\t<truncated>0</truncated>\n"
        text += f"\t\t<difficult>{flag}</difficult>\n\t\t<bndbox>{sides}</bndbox>\n"
        text += "\t\t<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>\n\t</object>\n"
    path.write_text(text + "</annotation>\n")


def _random_object(rng, size):
    width, height = (int(rng.integers(side // 4, side // 2)) for side in size)
    xmin, ymin = int(rng.integers(1, size[0] - width)), int(rng.integers(1, size[1] - height))
    name = sorted(COLORS)[int(rng.integers(len(COLORS)))]
    return name, (xmin, ymin, xmin + width - 1, ymin + height - 1)
