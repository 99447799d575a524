"""Every experiment of the paper runs: its small version on generated data of the published format, on two ranks."""

import numpy as np
import pytest
import torch
from PIL import Image

from activelr_service.config import load_job
from activelr_service.data.info import DataInfo
from activelr_service.models import build_model
from activelr_service.runs.journal import read_journal
from activelr_service.service.check import prepare_job
from activelr_service.service.resolve import Resources, resolve_job
from activelr_service.training.build import build_training
from activelr_service.training.loop import fit
from tests.conftest import ROOT
from tests.data.generate_cifar import write_cifar
from tests.data.generate_text import write_wikitext
from tests.data.generate_voc import write_voc
from tests.ranks import run_ranks
from tests.training.test_loop import CPU, store

pytestmark = pytest.mark.slow

CONFIGS = sorted((ROOT / "configs" / "paper").glob("*.yaml"))


def write_imagenet(root):
    """Folders named as ImageNet's, with a grey and a CMYK image among them, as the real one has."""
    rng = np.random.default_rng(0)
    for split, name in ((split, name) for split in ("train", "val") for name in ("n01440764", "n01443537")):
        folder = root / split / name
        folder.mkdir(parents=True)
        for index, mode in enumerate(["RGB"] * 6 + ["L", "CMYK"]):
            image = Image.fromarray(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)).convert(mode)
            image.save(folder / f"{name}_{index}.JPEG", format="JPEG")


def write_devkit(root):
    """VOC 2007 and 2012, as they unpack into one VOCdevkit."""
    write_voc(root, "2007", sets=(("trainval", 6), ("test", 3)))
    write_voc(root, "2012", sets=(("trainval", 6),), seed=1)


WRITERS = {"cifar10": write_cifar, "imagefolder": write_imagenet, "text": write_wikitext, "voc": write_devkit}


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The folder with a run of each config: two ranks, which take one job after the other."""
    folder = tmp_path_factory.mktemp("paper")
    jobs = [small_version(path, folder) for path in CONFIGS]
    run_ranks(train_all, 2, folder, jobs, folder)
    return folder


def small_version(path, folder):
    kind = load_job(path).data.type
    root = folder / kind
    if not root.exists():
        WRITERS[kind](root)
    overrides = ["preset=smoke", f"data.root={root}", f"output_dir={folder}", "workers.num_workers=2"]
    job, info = prepare_job(load_job(path, overrides))
    return resolve_job(job, info, Resources(2, 0))[0], info


def train_all(rank, jobs, folder):
    for job, info in jobs:
        fit(build_training(job, info, CPU), store(folder / job.name), lambda record: None)


@pytest.mark.xdist_group("paper")
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_small_version_trains_on_two_ranks(ran, path):
    job = load_job(path, ["preset=smoke"])
    (record,) = read_journal(ran / job.name / "journal.jsonl")
    assert record.global_step >= 2
    assert np.isfinite(record.metrics["train/loss"])
    assert any(name.startswith("val/") for name in record.metrics)


@pytest.mark.parametrize(
    ("name", "info", "task", "count"),
    [
        # one convolution of 3 x 3 instead of 7 x 7, and 10 classes, from torchvision's 21,797,672
        (
            "cifar10_resnet34",
            DataInfo(("classification",), 1, 1, (3, 32, 32), num_classes=10),
            "classification",
            21_282_122,
        ),
        (
            "imagenet_resnet18",
            DataInfo(("classification",), 1, 1, (3, 224, 224), num_classes=1000),
            "classification",
            11_689_512,
        ),
        (
            "wikitext103_mini_gpt2",
            DataInfo(("language_modeling",), 1, 1, (200,), vocab_size=10_000),
            "language_modeling",
            10_000 * 768 + 200 * 768 + 2 * 7_087_872 + 2 * 768,
        ),
    ],
)
def test_the_models_have_the_parameters_of_the_papers(name, info, task, count):
    job = load_job(ROOT / "configs" / "paper" / f"{name}.yaml")
    with torch.device("meta"):
        model = build_model(job.model, info, task)
    assert sum(param.numel() for param in model.parameters()) == count


def test_the_paper_s_settings_are_those_it_states():
    jobs = {path.stem: load_job(path) for path in CONFIGS}
    assert jobs["imagenet_resnet18"].epochs == 110
    assert (jobs["wikitext103_mini_gpt2"].epochs, jobs["wikitext103_mini_gpt2"].global_batch_size) == (200, 128)
    assert jobs["wikitext103_mini_gpt2"].data.block_size == 200
    assert jobs["wikitext2_gpt2"].data.block_size == 1024
    for job in jobs.values():
        assert (job.optimizer.gain_increment, job.optimizer.gain_decay) == (0.1, 0.9)
