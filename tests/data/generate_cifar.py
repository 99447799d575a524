"""Small copies of CIFAR-10 and CIFAR-100 in their published format."""

import pickle

import numpy as np

from activelr_service.data.cifar import LAYOUTS


def write_cifar(root, name="cifar10", rows=20, protocol=4):
    """``rows`` random images a file, each class in turn, with bytes as keys as in the published files."""
    layout = LAYOUTS[name]
    folder = root / layout.folder
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    num_classes = 10 if name == "cifar10" else 100
    for file in (*layout.train, *layout.test):
        labels = [index % num_classes for index in range(rows)]
        images = rng.integers(0, 255, (rows, 3072), dtype=np.uint8)
        content = {b"data": images, layout.labels.encode(): labels, b"batch_label": b"generated"}
        (folder / file).write_bytes(pickle.dumps(content, protocol=protocol))
    names = [f"class {index}".encode() for index in range(num_classes)]
    (folder / layout.meta).write_bytes(pickle.dumps({layout.names.encode(): names}, protocol=protocol))
    return folder
