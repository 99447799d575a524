"""The probe in real ranks: it leaves no trace in the training, and memory that ends on one rank strands no other."""

import json

import numpy as np
import pytest
import torch

from activelr_service.data import inspect_data
from activelr_service.errors import JobError
from activelr_service.service.resolve import Resources, resolve_job
from activelr_service.training.batch_size.choice import BatchSizeChoice, write_choice
from activelr_service.training.batch_size.probe import resolve_batch_size
from activelr_service.training.build import build_training
from activelr_service.training.checkpoint import CheckpointStore
from activelr_service.training.loop import fit
from tests.conftest import small_job
from tests.ranks import run_ranks
from tests.training.test_loop import CPU, assert_identical, final_tensors, train

pytestmark = pytest.mark.slow

SIZES = (8, 16, 32)
DROPOUT_AND_BATCH_NORM = {"type": "python", "name": "norm_and_dropout"}
PACKAGE = """\
import torch
import torch.distributed as dist

class Tight(torch.nn.Module):
    '''Rank 1 has memory for so many rows at a time, the others for any number.'''

    def __init__(self, most, error="CUDA out of memory"):
        super().__init__()
        self.most, self.error, self.linear = most, error, torch.nn.Linear(4, 3)

    def forward(self, x):
        if dist.get_rank() == 1 and self.training and len(x) > self.most:
            raise RuntimeError(self.error)
        return self.linear(x)

def norm_and_dropout():
    nn = torch.nn
    convolutions = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.BatchNorm2d(16)]
    return nn.Sequential(*convolutions, nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(16 * 12 * 12, 3))
"""


@pytest.fixture(scope="module", autouse=True)
def package(tmp_path_factory):
    """The models above, as pip would have installed them."""
    folder = tmp_path_factory.mktemp("package")
    (folder / "probed_models.py").write_text(PACKAGE)
    metadata = folder / "probed_models-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: probed-models\nVersion: 1.0\n")
    models = ("tight = probed_models:Tight", "norm_and_dropout = probed_models:norm_and_dropout")
    (metadata / "entry_points.txt").write_text("\n".join(["[activelr.models]", *models]))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield


def unresolved(folder, num_workers, shape=(3, 16, 16), **changes):
    """A job for 300 rows that gives no batch size, and may have one of 32."""
    path = folder / "rows.npz"
    if not path.exists():
        rng = np.random.default_rng(0)
        np.savez(path, x=rng.normal(size=(375, *shape)).astype(np.float32), y=np.arange(375) % 3)
    job = small_job(
        folder,
        **{
            "epochs": 100,
            "data": {"type": "npz", "path": str(path)},
            "workers": {"num_workers": num_workers},
            **changes,
        },
    )
    resolved, _ = resolve_job(job, inspect_data(job.data), Resources(num_workers, 0))
    assert resolved.global_batch_size is None
    return resolved


def found_batch_size(job, path):
    return resolve_batch_size(path, job, inspect_data(job.data), CPU)


def train_given_and_probed(job, folder):
    """Train with each batch size that a probe could choose, then probe and train with what it chose; one epoch each."""
    once = {"epochs": 1}
    for size in SIZES:
        train(job.complete(size, 1).model_copy(update=once), folder / str(size))
    completed, choice = found_batch_size(job, folder / "batch_size.json")
    probed = folder / "probed"
    (probed / "checkpoints").mkdir(parents=True, exist_ok=True)
    checkpoints = CheckpointStore(probed / "checkpoints", probed / "journal.jsonl", print, choice)
    job = completed.model_copy(update={"epochs": 1})
    fit(build_training(job, inspect_data(job.data), CPU), checkpoints, lambda record: None)
    return completed, choice


def find_and_train(jobs, folder):
    """The completed job and the choice for each, which is then trained for an epoch, or how the probe ended."""
    results = []
    for index, job in enumerate(jobs):
        try:
            completed, choice = found_batch_size(job, folder / f"{index}.json")
            train(completed.model_copy(update={"epochs": 1}), folder / str(index))
            results.append((completed, choice))
        except torch.OutOfMemoryError as error:
            results.append(str(error))
    return results


def on_rank(rank, job, tight_jobs, folder):
    return train_given_and_probed(job, folder), find_and_train(tight_jobs, folder / "tight")


@pytest.fixture(scope="module")
def two_ranks(package, tmp_path_factory):
    """What each of two ranks returned, and their folder."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "tight").mkdir()
    tight = {"type": "python", "name": "tight"}
    tight_jobs = [
        unresolved(folder / "tight", 2, shape=(4,), model={**tight, "args": args})
        for args in ({"most": 16}, {"most": 2}, {"most": 0}, {"most": 16, "error": "CUDNN_STATUS_NOT_SUPPORTED"})
    ]
    job = unresolved(folder, 2, model=DROPOUT_AND_BATCH_NORM)
    return run_ranks(on_rank, 2, folder, job, tight_jobs, folder), folder


def assert_no_trace(completed, choice, folder):
    assert [tried.micro_batch_size for tried in choice.tried][:2] == [8, 16]
    assert completed.grad_accum_steps == 1
    assert_identical(final_tensors(folder / "probed", 1), final_tensors(folder / str(completed.global_batch_size), 1))
    manifest = json.loads((folder / "probed" / "checkpoints" / "epoch-000001" / "manifest.json").read_text())
    assert manifest["batch_size"] == choice.to_json()


def test_a_training_after_a_probe_is_bit_for_bit_that_of_a_job_that_gives_its_batch_size(tmp_path):
    job = unresolved(tmp_path, 1, model=DROPOUT_AND_BATCH_NORM)
    assert_no_trace(*train_given_and_probed(job, tmp_path), tmp_path)


@pytest.mark.xdist_group("probe")
def test_so_it_is_on_two_ranks_which_choose_the_same(two_ranks):
    ((first, _), (second, _)), folder = two_ranks
    assert first == second
    assert_no_trace(*first, folder)


@pytest.mark.xdist_group("probe")
def test_memory_that_ends_on_one_rank_strands_no_other_and_the_choice_backs_off_on_both(two_ranks):
    ((_, first), (_, second)), _ = two_ranks
    assert first == second
    job, choice = first[0]
    assert [tried.micro_batch_size for tried in choice.tried if not tried.fits] == [32]
    assert choice.largest_micro_batch_size == 16
    assert job.global_batch_size in (16, 32)
    assert job.micro_batch_size() <= 16


@pytest.mark.xdist_group("probe")
def test_a_size_at_which_a_kernel_fails_is_backed_off_from_likewise(two_ranks):
    ((_, (*_, (job, choice))), _), _ = two_ranks
    assert [tried.micro_batch_size for tried in choice.tried if not tried.fits] == [32]
    assert job.micro_batch_size() <= 16


@pytest.mark.xdist_group("probe")
def test_where_a_few_rows_fit_at_a_time_they_are_accumulated_and_where_none_does_the_probe_says_so(two_ranks):
    ((_, (_, (job, choice), nothing, _)), _), _ = two_ranks
    assert [(tried.micro_batch_size, tried.fits) for tried in choice.tried] == [(2, True), (4, False)]
    assert choice.global_batch_size in SIZES
    assert (job.micro_batch_size(), job.grad_accum_steps) == (2, job.global_batch_size // 4)
    assert nothing == "not even one sample fits into the memory of a worker; use a smaller model"


def test_a_choice_that_was_made_is_taken_by_other_workers_without_another_probe(tmp_path):
    cannot_be_built = {"type": "python", "name": "nothing"}
    job = unresolved(tmp_path, 1, model=cannot_be_built)
    with pytest.raises(JobError, match="nothing"):
        found_batch_size(job, tmp_path / "none.json")
    choice = BatchSizeChoice(64, None, largest_micro_batch_size=16, num_train=300, reason="measured by four workers")
    write_choice(tmp_path / "batch_size.json", choice)
    completed, taken = found_batch_size(job, tmp_path / "batch_size.json")
    assert taken == choice
    assert (completed.global_batch_size, completed.grad_accum_steps, completed.micro_batch_size()) == (64, 4, 16)
    earlier = completed.model_copy(update={"global_batch_size": 64, "grad_accum_steps": 1})
    assert found_batch_size(earlier, tmp_path / "batch_size.json")[0] == completed, (
        "as it was resolved for four workers"
    )


def test_a_job_that_gives_its_batch_size_is_not_probed(tmp_path):
    job = unresolved(tmp_path, 1).complete(10, 2)
    assert found_batch_size(job, tmp_path / "batch_size.json") == (job, None)
    assert not (tmp_path / "batch_size.json").exists()
