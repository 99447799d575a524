"""Folders of small images, one for each class."""

import numpy as np
from PIL import Image


def write_images(root, classes=("cat", "dog"), count=6, seed=0):
    rng = np.random.default_rng(seed)
    for name in classes:
        (root / name).mkdir(parents=True)
        for index in range(count):
            Image.fromarray(rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(root / name / f"{index}.png")


def write_pixels(root, files):
    """Write each image (a PIL image) at its path below ``root``."""
    for name, image in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(root / name)
    return root
