"""A whole epoch on two GPUs that are not there: no tensor of the CPU is mixed with theirs, and no step waits for them."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from activelr_service.data import inspect_data
from activelr_service.optim import ActiveAdamW
from activelr_service.service.resolve import Resources, resolve_job
from activelr_service.tasks import TASKS
from activelr_service.training import distributed
from activelr_service.training.build import TrainContext, build_loaders, build_training
from activelr_service.training.checkpoint_files import named_state
from activelr_service.training.evaluate import MetricAccumulator, evaluate
from activelr_service.training.loop import end_epoch, fit, train_step
from activelr_service.training.monitors import EnergyMeter, GradNorms
from activelr_service.training.optimizers import begin_step, build_optimizer, gain_histogram, gain_metrics, set_training
from activelr_service.training.progress import RunProgress
from activelr_service.training.update_metrics import update_metrics
from activelr_service.training.within_epoch import WithinEpoch
from tests.conftest import small_job
from tests.fake_gpu import DEVICE, DeviceMixError, FakeGPU, HostSyncError, two_ranks
from tests.ranks import run_ranks
from tests.training.test_loop import resolved, store

STEPS = 8  # more than the six from which on RAdam rectifies, and the ends of four windows


@pytest.fixture
def gpu(monkeypatch):
    """Two ranks, each with a fake GPU. Autograd's engine and a broadcast ask the driver, which is not there."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (8, 0))
    monkeypatch.setattr(torch.Tensor, "backward", lambda loss: give_gradients(gpu.model))
    monkeypatch.setattr("activelr_service.training.monitors._nvml_handle", lambda device: None)
    gpu = FakeGPU()
    with two_ranks():
        yield gpu


def give_gradients(model):
    for param in model.parameters():
        param.grad = torch.randn_like(param)


def fake_training(gpu, folder, **changes):
    """As build_training makes it, with a model that has buffers of every kind, and its batches, all fake."""
    changes = {"global_batch_size": 8, "clip_grad_norm": 1.0, "workers": {"num_workers": 2}, **changes}
    job = small_job(folder, **changes)
    job = resolve_job(job, inspect_data(job.data), Resources(2, 2))[0]
    task = TASKS["classification"]
    train, val = build_loaders(job, task, torch.device("cpu"))
    batches = [next(iter(train)) for _ in range(2 * STEPS)], [next(iter(val))]
    with gpu, torch.device(DEVICE):
        gpu.model = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.BatchNorm1d(16), nn.Linear(16, 10))
    with gpu:
        optimizer = build_optimizer(job.optimizer, gpu.model)
        progress = RunProgress(job, STEPS, 1.0, DEVICE)
        train, val = ([[gpu.fake.from_tensor(part) for part in batch] for batch in part] for part in batches)
        norms = GradNorms(gpu.model, DEVICE)
        return TrainContext(
            job, task, DEVICE, gpu.model, gpu.model, optimizer, train, val, STEPS, progress, EnergyMeter(DEVICE), norms
        )


def run_epochs(gpu, training, epochs=2):
    """What run_epoch does, with the steps watched."""
    for epoch in range(1, epochs + 1):
        set_training(training.optimizer, True)
        totals = MetricAccumulator((*training.task.sum_names, "grad_norm"), DEVICE)
        batches = iter(training.train_loader)
        for step in range(STEPS):
            gpu.number = float((epoch - 1) * STEPS + step + 1)
            with gpu.busy():
                begin_step(training.optimizer, training.job.optimizer.schedule, step / STEPS, (step + 1) / STEPS)
                norm = train_step(training, batches, totals, step)
                totals.add({"grad_norm": norm / distributed.world_size()})
        gpu.number = 0.0  # equal fingerprints, and no step whose loss was not finite
        totals.over_ranks(STEPS)
        end_epoch(training, epoch)
        gpu.number = 1.0
        evaluate(training.task, training.model, training.val_loader, DEVICE, training.job.precision)
        training.grad_norms.flush()
        training.energy.flush()
    return training


OPTIMIZERS = [
    *({"type": name, "rule": rule} for name in ("active_sgd", "active_adamw", "active_radam", "active_belief", "active_muon")
      for rule in ("paper", "robust")),
    {"type": "active_sgd", "rule": "robust", "momentum": 0.9, "weight_decay": 0.01},
    {"type": "active_adamw", "rule": "paper", "window_steps": 3},
    *({"type": name} for name in ("sgd", "adamw", "radam", "adabelief")),
]  # fmt: skip


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda options: "-".join(map(str, options.values())))
def test_two_epochs_of_every_optimizer_mix_no_devices_and_no_step_waits_for_the_gpu(tmp_path, gpu, optimizer):
    training = fake_training(gpu, tmp_path, optimizer=optimizer)
    with gpu:
        run_epochs(gpu, training)
        gain_metrics(training.optimizer)
        gain_histogram(training.optimizer)
        update_metrics(training.optimizer, training.model)
        devices = {tensor.device.type for tensor in named_state(training.model, training.optimizer).values()}
    assert devices >= {"cuda"}


def test_between_steps_the_host_waits_only_where_a_reading_is_due(tmp_path, gpu):
    training = fake_training(gpu, tmp_path, log_every={"steps": 4}, checkpoint_every={"steps": 1000})
    with gpu:
        running = SimpleNamespace(steps=0, epoch=1, train_seconds=1.0, paused=0.0)
        running.totals = MetricAccumulator((*training.task.sum_names, "grad_norm"), DEVICE)
        within = WithinEpoch(training, store(tmp_path), [])
        within.begin(running)
        for step in range(1, STEPS):
            running.steps = training.progress.step = step
            with gpu.busy():
                if step % 4:
                    within(running)
                else:
                    with pytest.raises(HostSyncError):
                        within(running)


def test_neither_does_a_job_that_clips_nothing_and_accumulates_gradients(tmp_path, gpu):
    training = fake_training(gpu, tmp_path, clip_grad_norm=None, grad_accum_steps=2)
    with gpu:
        run_epochs(gpu, training, 1)


def test_a_model_whose_parts_are_on_several_devices_is_trained_and_compared(gpu):
    with gpu:
        params = [nn.Parameter(torch.randn(4, 3, device=device)) for device in ("cpu", DEVICE, "cpu")]
        for rule in ("paper", "robust"):
            optimizer = ActiveAdamW(params, rule=rule, total_steps=9 if rule == "robust" else None)
            for _ in range(3):
                for param in params:
                    param.grad = torch.randn_like(param)
                optimizer.step()
                optimizer.end_step(reduce=distributed.mean_)
            optimizer.end_sums(reduce=distributed.mean_)
            optimizer.gain_stats()
            optimizer.gain_histogram([0.1, 1.0, 10.0])
            gpu.number = 0.0
            tensors = [value for state in optimizer.state.values() for value in state.values()]
            distributed.check_replicas({str(index): value for index, value in enumerate(tensors)}, 1, DEVICE)
            gpu.number = 1.0


def test_a_buffer_on_the_cpu_reaches_the_other_ranks_by_the_gpu(gpu):
    with gpu:
        model = nn.BatchNorm1d(4, device=DEVICE)
        model.register_buffer("counts", torch.zeros(4))
        distributed.broadcast_buffers(model, DEVICE)
        assert model.counts.device.type == "cpu"


def test_the_fake_gpu_refuses_what_a_real_one_would_and_what_makes_the_host_wait(gpu):
    with gpu:
        here, there = torch.tensor(0.0), torch.zeros(3, device=DEVICE)
        with pytest.raises(DeviceMixError, match="stack"):
            torch.stack([there[0], here])
        with pytest.raises(DeviceMixError, match="NCCL"):
            distributed.sum_(here)
        for wait in (there.sum().item, there.tolist, there.cpu, lambda: bool(there[0] > 0), there.nonzero):
            with gpu.busy(), pytest.raises((HostSyncError, RuntimeError)):
                wait()
        with gpu.busy():
            assert here.item() == gpu.number


def train_on_the_gpu(rank, job, folder):
    """Train on the first GPU, which the ranks share by gloo; every epoch ends with a comparison of all their tensors."""
    training = build_training(job, inspect_data(job.data), torch.device("cuda", 0))
    return len(fit(training, store(folder), lambda record: None))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("rule", ["paper", "robust"])
@pytest.mark.parametrize("name", ["active_sgd", "active_adamw", "active_radam", "active_belief", "active_muon"])
def test_where_there_is_a_gpu_two_ranks_train_on_it(tmp_path, name, rule):
    job = resolved(small_job(tmp_path, epochs=2, optimizer={"type": name, "rule": rule}), 2)
    assert run_ranks(train_on_the_gpu, 2, tmp_path, job, tmp_path) == [2, 2]
