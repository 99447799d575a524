"""``python -m benchmarks [NAME ...]``: every figure, or those named, measured side by side in one run."""

import os
import platform
import sys

import torch

from benchmarks import epoch, loaders, options, start, step, study

FIGURES = {
    "step": step.main,
    "epoch": epoch.main,
    "start": start.main,
    "options": options.main,
    "loaders": loaders.main,
    "study": study.main,
}

if __name__ == "__main__":
    names = sys.argv[1:] or list(FIGURES)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    print(f"{os.cpu_count()} cores, {device}, torch {torch.__version__}, Python {platform.python_version()}")
    for name in names:
        print(flush=True)
        FIGURES[name]()
