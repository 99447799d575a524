"""Several ranks: what each draws, parameters that some of them do not use, and numbers that some of them lack."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from activelr_service.config.model import PythonModelConfig
from activelr_service.data import inspect_data
from activelr_service.tasks import TASKS
from activelr_service.training import distributed
from activelr_service.training.build import build_training, seed_loader
from activelr_service.training.checkpoint_files import named_state
from activelr_service.training.evaluate import MetricAccumulator
from activelr_service.training.loop import run_epoch, train_step
from activelr_service.training.optimizers import begin_step, build_optimizer
from activelr_service.training.replicate import few_rows, may_vary, replicate, throw_away_pass
from tests.conftest import small_job
from tests.ranks import run_ranks
from tests.training.test_loop import CPU, resolved

pytestmark = pytest.mark.slow

CLASSES = TASKS["classification"]


class Draws(Dataset):
    """Rows that a loader process draws, as it draws crops and flips."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return index, torch.rand(()).item()


def draw(rank):
    """The rows of an epoch of some seeds, and what was drawn for them: in a loader process for the first."""
    found = {}
    for num_workers, seed, epoch in ((1, 0, 1), (0, 0, 2), (0, 1, 1)):
        options = {"num_workers": 1, "multiprocessing_context": "fork"} if num_workers else {}
        sampler = DistributedSampler(Draws())
        loader = DataLoader(Draws(), sampler=sampler, generator=torch.Generator(), **options)
        seed_loader(loader, seed, epoch)
        found[seed, epoch] = [(int(index), float(value)) for index, value in loader]
    return found


def test_ranks_deal_the_same_order_and_draw_different_crops_and_no_seed_repeats_another_s_epoch(tmp_path):
    first, second = run_ranks(draw, 2, tmp_path)
    orders = set()
    for key in first:
        rows = [[index for index, _ in found[key]] for found in (first, second)]
        assert sorted(rows[0] + rows[1]) == list(range(8))
        orders.add(tuple(rows[0] + rows[1]))
    assert not {value for _, value in first[0, 1]} & {value for _, value in second[0, 1]}
    assert len(orders) == 3


class WithUnused(nn.Module):
    """A classifier of digits with a layer that is used by no row, or only by batches that start with a bright image."""

    def __init__(self, is_used_by_some):
        super().__init__()
        self.body, self.spare, self.head = nn.Linear(192, 16), nn.Linear(16, 16), nn.Linear(16, 10)
        self.is_used_by_some = is_used_by_some

    def forward(self, images):
        hidden = self.body(images.flatten(1)).relu()
        if self.is_used_by_some and images[0].mean() > images.mean():
            hidden = self.spare(hidden)
        return self.head(hidden)


def train_with_unused(rank, job, is_used_by_some):
    """Two epochs; returns what was found at the start, how many steps used the spare layer, and the final state."""
    torch.manual_seed(0)
    model = WithUnused(is_used_by_some)
    training = build_training(job, inspect_data(job.data), CPU)
    config = PythonModelConfig(name="own") if is_used_by_some else job.model
    dataset = training.train_loader.dataset
    replica, without = replicate(model, job.model_copy(update={"model": config}), CLASSES, dataset, CPU)
    training = replace(training, model=model, replica=replica, optimizer=build_optimizer(job.optimizer, model))
    start = model.spare.weight.detach().clone()
    for epoch in (1, 2):
        run_epoch(training, epoch)
    step = training.optimizer.state[model.spare.weight].get("step", torch.tensor(0.0))
    moved = not torch.equal(start, model.spare.weight)
    return (
        without,
        int(step),
        moved,
        {name: value.clone() for name, value in named_state(model, training.optimizer).items()},
    )


@pytest.mark.parametrize("rule", ["robust", "paper"])
@pytest.mark.parametrize("is_used_by_some", [False, True])
def test_parameters_that_no_row_or_only_some_use_train_on_two_ranks(tmp_path, rule, is_used_by_some):
    changes = {"global_batch_size": 64, "grad_accum_steps": 2, "optimizer": {"rule": rule}}
    job = resolved(small_job(tmp_path, epochs=2, **changes), 2)
    first, second = run_ranks(train_with_unused, 2, tmp_path, job, is_used_by_some)
    without, steps, moved, state = first
    if is_used_by_some:
        assert 0 < steps < 44
        assert moved
    else:
        assert without == ["spare.weight", "spare.bias"]
        assert (steps, moved) == (0, False)
    for name, value in state.items():
        assert torch.equal(value, second[3][name]), name


def lack(rank):
    """A number that only rank 0 has, then one that both have."""
    return [
        distributed.sum_if_all_have(252.0 if rank == 0 else None, CPU),
        distributed.sum_if_all_have(1.0 + rank, CPU),
        distributed.sum_(torch.tensor(1 + rank)).item(),
    ]


def test_energy_that_one_rank_cannot_measure_is_left_out_on_all_and_no_later_sum_is_wrong(tmp_path):
    assert run_ranks(lack, 2, tmp_path) == [[None, 3.0, 3]] * 2


def test_a_first_batch_passes_over_rows_that_are_skipped_as_corrupt():
    rows = [(None, 0), (None, 1), (torch.ones(2), 2), (None, 3), (torch.zeros(2), 4), (torch.zeros(2), 5)]
    _, labels = few_rows(CLASSES, rows, most=64)
    assert labels.tolist() == [2, 4]
    assert few_rows(CLASSES, rows, most=1)[1].tolist() == [2]
    with pytest.raises(ValueError, match="every row of a batch is corrupt"):
        few_rows(CLASSES, rows[:2], most=64)


def test_the_pass_that_is_thrown_away_computes_as_training_does_and_leaves_the_buffers():
    model, seen = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)), []
    model[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    batch = torch.randn(4, 2), torch.tensor([0, 1, 2, 0])
    for precision in ("bfloat16", "float32"):
        throw_away_pass(model, batch, CLASSES, precision)
    assert seen == [torch.bfloat16, torch.float32]
    assert model[1].num_batches_tracked == 0
    assert (model[1].running_mean == 0).all()


def test_models_whose_graph_may_change_are_looked_through_in_every_step_and_others_are_not(tmp_path):
    job, model = small_job(tmp_path), nn.Sequential(nn.Linear(2, 2))
    assert not may_vary(model, job)
    assert may_vary(model, job.model_copy(update={"model": PythonModelConfig(name="own")}))
    for share, expected in ((0.0, False), (0.1, True)):
        model[0].layerdrop = share  # as the decoders of transformers have it
        assert may_vary(model, job) is expected


def train_with_an_empty_batch(rank, job):
    """Three steps: of the first batches that of rank 0 has no row that can be read, of the second neither has. Returns the
    number of rows that were counted, and whether all tensors are finite."""
    training = build_training(job, inspect_data(job.data), CPU)
    batches = iter(training.train_loader)
    batches = iter([None if rank == 0 else next(batches), None, next(batches)])
    training.replica.train()
    totals = MetricAccumulator((*CLASSES.sum_names, "grad_norm"), CPU)
    for step in range(3):
        begin_step(training.optimizer, "constant", step / 3, (step + 1) / 3)
        train_step(training, batches, totals, step)
    sums = totals.over_ranks(3)
    named = named_state(training.model, training.optimizer)
    distributed.check_replicas(named, 1, CPU)
    return sums["count"], all(value.isfinite().all().item() for value in named.values())


def test_a_batch_whose_rows_are_all_skipped_counts_nothing_and_keeps_no_rank_waiting(tmp_path):
    job = resolved(small_job(tmp_path, epochs=1, global_batch_size=64), 2)
    assert run_ranks(train_with_an_empty_batch, 2, tmp_path, job) == [(32 + 64, True)] * 2
