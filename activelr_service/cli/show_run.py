"""A run in words: the row of ``activelr list``, and all that ``activelr status`` says about it."""

from typing import Any

from activelr_service.config import CompleteJob, ResolvedJob
from activelr_service.config.optimizer import ActiveOptimizerConfig
from activelr_service.errors import RunDamagedError
from activelr_service.runs.compare import describe_data, model_name
from activelr_service.runs.console import duration, show_score
from activelr_service.runs.journal import read_journal
from activelr_service.runs.live import read_live
from activelr_service.runs.record import Record, elapsed, seconds_left
from activelr_service.runs.run import Run, target_of
from activelr_service.runs.score import best_record
from activelr_service.service.test_split import describe_test
from activelr_service.tracking.store import is_embedded


def run_row(run: Run) -> list[str]:
    """The cells of a run in ``activelr list``. A run that cannot be read is shown as damaged, with the reason."""
    try:
        state, history, job = run.state(), read_journal(run.journal), run.job()
        status = run.status()
    except RunDamagedError as error:
        return [run.label, "damaged", "", "", "", _without_label(str(error), run)]
    done = (
        job.duration.describe(history[-1].position).removeprefix("epoch").strip() if history else f"0 of {job.duration}"
    )
    return [run.label, status, done, _best(history, job), state.get("mlflow_run_id", ""), _reason(state, run)]


def run_json(run: Run) -> dict[str, Any]:
    """The state of a run as it is kept, with its name, its folder, and the status that it really has."""
    return {"run": run.label, "folder": str(run.folder), **run.state(), "status": run.status()}


def run_lines(run: Run) -> list[str]:
    """All that ``activelr status`` prints about a run. Raises :class:`RunDamagedError` if the run cannot be read."""
    state, history, job = run.state(), read_journal(run.journal), run.job()
    attempts = f", attempt {state['attempts']}" if state.get("attempts", 1) > 1 else ""
    data = run.read_data()
    facts = [
        ("reason", _reason(state, run)),
        ("done", _done(history, job)),
        ("now", _now(run, history, job) if run.is_active() else ""),
        ("ended", state.get("early_stop") or ""),
        ("last", _last(history, job)),
        ("best", _best(history, job, with_epoch=True)),
        ("test", describe_test(state)),
        ("process", f"{state.get('pid')} on {state.get('host')}" if run.is_active() else ""),
        ("trains", _describe_training(job)),
        ("data", _describe_data(data, job)),
        *(("warning", warning) for warning in (data or {"info": {}})["info"].get("warnings", ())),
        ("model", " ".join([str(run.model), *_in_brackets(state.get("model_uri"))]) if run.model.exists() else ""),
        ("MLflow", _where_tracked(run, job, state)),
        ("log", str(run.log) if run.log.exists() else ""),
        ("", "".join(run.log.read_text(errors="replace").splitlines()[-1:]) if run.log.exists() else ""),
        *(("next", line) for line in _next_commands(run, state, history, job)),
    ]
    return [f"{run.label}: {run.status()}{attempts}", *(f"  {name:<8} {text}" for name, text in facts if text)]


def _done(history: list[Record], job: ResolvedJob) -> str:
    if not history:
        return f"nothing yet of {job.duration}"
    last, length = history[-1], job.duration
    share = f"{100 * min(1.0, length.share_used(last.position)):.0f} %"
    place = (
        f"{last.epoch} of {length.value} ({share})" if length.unit == "epochs" else f"{last.epoch}, {share} of {length}"
    )
    return f"epoch {place}, step {last.global_step:,}, {duration(elapsed(history))} of training"


def _now(run: Run, history: list[Record], job: ResolvedJob) -> str:
    """Where a run that trains is within its epoch, as far as it has said, and the time that is left."""
    live = read_live(run.live)
    if live is None:
        return f"about {duration(seconds_left(history, job))} left" if history else ""
    loss = f"loss {live.loss:.4f}, " if live.loss is not None else ""
    place = f"epoch {live.epoch}, step {live.step:,} of {live.steps:,}"
    return f"{place}, {loss}{live.samples_per_sec:,.0f} samples/s, about {duration(live.seconds_left)} left"


def _last(history: list[Record], job: ResolvedJob) -> str:
    if not history:
        return ""
    metrics, (name, _) = history[-1].metrics, best_record(history, job)
    names = dict.fromkeys((name, "val/loss", "train/loss"))
    return ", ".join(f"{name} {show_score(metrics[name])}" for name in names if name in metrics)


def _best(history: list[Record], job: ResolvedJob, *, with_epoch: bool = False) -> str:
    name, best = best_record(history, job)
    if best is None or name not in best.metrics:
        return ""
    return f"{name} {show_score(best.metrics[name])}" + (f", at epoch {best.epoch}" if with_epoch else "")


def _describe_training(job: ResolvedJob) -> str:
    name, optimizer = model_name(job), job.optimizer
    name += f" ({job.model.type})" if name != job.model.type else ""
    rule = f", {optimizer.rule} rule" if isinstance(optimizer, ActiveOptimizerConfig) else ""
    batch = "a batch size to be found"
    if isinstance(job, CompleteJob):
        batch = f"batch {job.global_batch_size}: {job.workers.num_workers} x {job.micro_batch_size()}"
        batch += f" x {job.grad_accum_steps}" if job.grad_accum_steps > 1 else ""
    return f"{name} for {job.task.replace('_', ' ')} with {optimizer.type}{rule}; {batch}"


def _describe_data(data: dict[str, Any] | None, job: ResolvedJob) -> str:
    place = describe_data(job)
    parts = [job.data.type, *([place] if place != job.data.type else [])]
    if data is None:
        return ", ".join(parts)
    info = data["info"]
    sizes = (("num_train", "training"), ("num_val", "validation"), ("num_test", "test"))
    counts = [f"{info[key]:,} {use}" for key, use in sizes if info.get(key)]
    return ", ".join([*parts, *([f"{', '.join(counts)} samples"] if counts else [])])


def _next_commands(run: Run, state: dict[str, Any], history: list[Record], job: ResolvedJob) -> list[str]:
    """The commands that make sense for a run as it is."""
    name = target_of(run)
    finish = f"`activelr finish {name}` ends it with the best model of its epochs"
    predict = f"`activelr predict {name} INPUT --output FILE` uses its model" if run.model.exists() else ""
    deliver = f"`activelr resume {name}` delivers the rest to MLflow"
    tracked = state.get("tracked") or job.tracking.backend == "none"
    status = run.status()
    if status == "running":
        return [f"`activelr stop {name}` stops it, and leaves its best model so far"]
    if status == "interrupted":
        return [f"`activelr resume {name}` continues it", finish if history else "", predict]
    if status == "failed":
        return [f"`activelr logs {name}` shows what happened", finish if history else "", predict]
    return [predict, "" if tracked else deliver]


def _reason(state: dict[str, Any], run: Run) -> str:
    return _without_label((state.get("reason") or "").partition("\n")[0], run)


def _without_label(text: str, run: Run) -> str:
    return text.removeprefix(f"run {run.label} ").removeprefix("is damaged: ")


def _in_brackets(uri: str | None) -> list[str]:
    return [f"({uri} in MLflow)"] if uri else []


def _where_tracked(run: Run, job: ResolvedJob, state: dict[str, Any]) -> str:
    uri = job.tracking.uri or ""
    place = f"activelr ui --output-dir {run.folder.parent.parent}" if is_embedded(uri) else uri
    rest = "" if state.get("tracked") or run.is_active() else ", where some results are missing yet"
    return f"{place}  (run {state['mlflow_run_id']}{rest})" if state.get("mlflow_run_id") else ""
