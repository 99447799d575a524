"""A finished run to damage, and data that can change."""

import shutil

import numpy as np
import pytest

from activelr_service.runs.journal import read_journal, write_journal
from activelr_service.service.launch import train
from tests.conftest import small_job

QUICK = {"workers": {"num_workers": 1}, "global_batch_size": 64, "epochs": 2}


def bits(run, epoch):
    path = run.checkpoints / f"epoch-{epoch:06d}"
    return [(path / name).read_bytes() for name in ("model.safetensors", "optimizer.safetensors")]


def cut_off(run, epoch):
    """Make of a finished run one that was killed after an epoch."""
    shutil.rmtree(run.model)
    for later in (path for path in run.checkpoints.glob("epoch-*") if int(path.name[6:]) > epoch):
        shutil.rmtree(later)
    write_journal(run.journal, read_journal(run.journal)[:epoch])
    run.update(status="running", pid=2**22 + 1, tracked=False, model_uri=None)


def rows_job(folder, **changes):
    rng = np.random.default_rng(0)
    arrays = {"x": rng.normal(size=(200, 4)).astype(np.float32), "y": np.arange(200) % 3}
    np.savez(folder / "rows.npz", **arrays)
    data = {"type": "npz", "path": str(folder / "rows.npz")}
    return small_job(folder / "out", **{**QUICK, "data": data, **changes}), arrays


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    return train(small_job(tmp_path_factory.mktemp("origin"), **QUICK))


@pytest.fixture
def run(origin, tmp_path):
    """A finished run of its own for each test, which nobody moved: its folder is where it was trained."""
    root = origin.folder.parent.parent
    kept = root / "kept"
    shutil.copytree(origin.folder, kept)
    yield origin
    shutil.rmtree(origin.folder)
    kept.rename(origin.folder)
    for extra in (path for path in (root / "small").glob("*") if path.name not in (".lock", "001")):
        shutil.rmtree(extra)
