"""Measuring the model of a run: on its own validation and test splits, or on all samples of other data."""

import json
import logging
from typing import Any, NamedTuple

from activelr_service.config import CompleteJob, ResolvedJob
from activelr_service.config.data import TableDataConfig, TextDataConfig
from activelr_service.data import SPLITS, build_split, build_whole, for_task, inspect_data
from activelr_service.data.fingerprint import FIELDS, Fingerprint, compare_data
from activelr_service.data.info import DataInfo
from activelr_service.data.remote import fetch
from activelr_service.data.text import is_prepared
from activelr_service.data.whole import Whole
from activelr_service.errors import CommandError, JobError
from activelr_service.export.model import RECIPE, load_model
from activelr_service.runs.run import Run
from activelr_service.service.check import prepare_job, with_absolute_paths
from activelr_service.service.finish import has_model
from activelr_service.service.prepare import check_data, relocate
from activelr_service.training.measure import Score, measure

LOG = logging.getLogger("activelr_service.service")
CHANGED = "restore them, or name data to measure on, such as --set data.val_path=FILE or --set data.root=FOLDER"
SOURCES = (*FIELDS, "years", "name", "args")  # the keys that say which data they are
SPLIT_KEYS = ("val_fraction", "test_fraction", "hold_out_test", "train_set")  # that say which samples were trained on
NAMES = {"val": "validation"}  # how a split may be called besides


class Evaluation(NamedTuple):
    """The scores of a run's model by split; ``all`` for all samples of other data. ``lines`` say what was measured."""

    scores: dict[str, Score]
    lines: list[str]


def evaluate_run(run: Run, job: ResolvedJob, split: str | None = None) -> Evaluation:
    """Measure the run's best model.

    Where ``job`` has the run's own data: on its validation and its test split, or on ``split``. Where it has other data: on
    all of their samples, or on those of ``split``, with the classes, the columns and the tokenizer of the model.

    ``split``: train, val, test or all. Raises :class:`JobError` if the data do not suit the model, and if the run's own
    data have changed, because the new validation split could contain training samples.
    """
    job = relocate(_check(run, job), run.folder.parent.parent)
    own = relocate(run.job(), run.folder.parent.parent).data
    trained = DataInfo.from_json(json.loads((run.model / RECIPE).read_text())["data"])
    split = NAMES.get(split or "", split)
    if split not in (None, "all", *SPLITS):
        raise CommandError(f"--split {split}: there are train, val, test and all")
    given = with_absolute_paths(job)
    if _source(given.data) == _source(own):
        _check_same_splits(given.data, own)
        if doubt := check_data(run, CHANGED):
            LOG.warning("%s", doubt)
        return _evaluate_own(run, given, trained, split)
    if given.data.type != own.type:
        raise JobError.at("data.type", f"the model was trained on data of type {own.type}, got {given.data.type}")
    return _evaluate_others(run, given, own, trained, split)


def _check(run: Run, job: ResolvedJob) -> CompleteJob:
    if not run.model.exists():
        raise CommandError(f"{run.label} has no model yet: its status is {run.status()}")
    if not has_model(run):
        raise CommandError(f"the model of {run.label} is damaged; `activelr resume {run.folder}` makes it again")
    if not isinstance(job, CompleteJob):
        raise CommandError(f"the job of {run.label} has no batch size; --set global_batch_size=NUMBER gives it one")
    return job


def _source(data: Any) -> dict[str, Any]:
    return {key: getattr(data, key, None) for key in SOURCES}


def _check_same_splits(data: Any, own: Any) -> None:
    """Raise :class:`JobError` if the run's own data would be split anew: samples to train on could then be measured."""
    for key in SPLIT_KEYS:
        now, before = getattr(data, key, None), getattr(own, key, None)
        if now != before:
            text = f"the run was trained with {before}, and its samples cannot be split anew, got {now}"
            raise JobError.at(f"data.{key}", f"{text}; --split all measures all of them")


def _evaluate_own(run: Run, job: CompleteJob, trained: DataInfo, split: str | None) -> Evaluation:
    measured, info = prepare_job(job.model_copy(update={"data": _as_trained(job.data, trained, run)}))
    _check_suits(info, trained)
    for warning in info.warnings:
        LOG.warning("%s", warning)
    wanted = {None: SPLITS[1:], "all": SPLITS}.get(split, (split,))
    found = [(name, build_split(measured.data, str(name))) for name in wanted]
    datasets = {str(name): dataset for name, dataset in found if dataset is not None}
    if not datasets:
        raise CommandError(
            f"{run.label} has no {split} split; a test split comes with the data, or by data.test_fraction"
        )
    model, size = load_model(run.model), measured.micro_batch_size()
    scores = {name: measure(job.task, model, dataset, size, LOG.warning) for name, dataset in datasets.items()}
    sizes = {"train": info.num_train, "validation": info.num_val, "test": info.num_test}
    rest = ", ".join(f"{name}: {count:,}" for name, count in sizes.items() if count and name not in datasets)
    sides = f"the data of the run; not measured: {rest}" if rest else "the data of the run"
    return Evaluation(scores, [sides])


def _evaluate_others(run: Run, job: CompleteJob, own: Any, trained: DataInfo, split: str | None) -> Evaluation:
    from torch.utils.data import ConcatDataset

    parts = _build_others(run, job, own, trained)
    chosen = parts if split in (None, "all") else [part for part in parts if part.split == split]
    if not chosen:
        there = ", ".join(part.split for part in parts if part.split) or "no splits"
        raise CommandError(f"--split {split}: these data have {there}")
    lines = [
        f"{len(part.dataset):,} {'sample' if len(part.dataset) == 1 else 'samples'}: {part.source}" for part in chosen
    ]
    lines += _same_as_own(run, job.data)
    for note in [note for part in chosen for note in part.notes]:
        LOG.warning("%s", note)
    data: ConcatDataset[Any] = ConcatDataset([part.dataset for part in chosen])
    score = measure(job.task, load_model(run.model), data, job.micro_batch_size(), LOG.warning)
    left_out = {reason: count for part in chosen for reason, count in part.left_out.items()}
    name = chosen[0].split if len(chosen) == 1 and chosen[0].split else "all"
    return Evaluation({name: score._replace(left_out={**left_out, **score.left_out})}, lines)


def _build_others(run: Run, job: CompleteJob, own: Any, trained: DataInfo) -> list[Whole]:
    """All samples of the data, without the files of the run's own data that the job still names."""
    cache = run.folder.parent.parent / ".cache"
    data = _as_trained(for_task(fetch(job.data, cache), job.task), trained, run)
    classes = getattr(data, "classes", None)
    if classes and trained.classes and list(classes) != list(trained.classes):
        text = f"the data have the classes {', '.join(classes[:5])} and the model {', '.join(trained.classes[:5])}"
        raise JobError.at("data.classes", f"{text}; leave it out: classes are matched by name")
    if isinstance(data, TableDataConfig):
        same = [field for field in FIELDS if getattr(job.data, field, None) == getattr(own, field, None)]
        data = data.model_copy(update=dict.fromkeys(same))
    elif data.type in ("cifar10", "cifar100", "python"):
        _check_suits(inspect_data(data, job.task), trained)
    return build_whole(data, trained, cache)


def _as_trained(data: Any, trained: DataInfo, run: Run) -> Any:
    """The data with the tokenizer of the model, and with its classes if the config of the data names none."""
    if isinstance(data, TextDataConfig) and not is_prepared(data):
        return data.model_copy(update={"tokens": None, "tokenizer": str(run.model)})
    if getattr(data, "classes", ()) is None and trained.classes:
        return data.model_copy(update={"classes": list(trained.classes)})
    return data


def _same_as_own(run: Run, data: Any) -> list[str]:
    """A line if other data are a copy of the run's own, which hold the samples that it was trained on."""
    kept = (run.read_data() or {}).get("fingerprint")
    if kept is None or compare_data(data, Fingerprint.from_json(kept)).change:
        return []
    return ["warning: these files are the same as the run's own data, so that samples to train on are measured, too"]


def _check_suits(info: DataInfo, trained: DataInfo) -> None:
    if info.classes and trained.classes and info.classes != trained.classes:
        text = f"the data have the classes {', '.join(info.classes[:5])} and the model {', '.join(trained.classes[:5])}"
        raise JobError.at("data", f"{text}; it can be measured on the same classes in the same order only")
    for size, ours, theirs in (
        ("classes", info.num_classes, trained.num_classes),
        ("different token ids", info.vocab_size, trained.vocab_size),
    ):
        if ours is not None and theirs is not None and ours > theirs:
            raise JobError.at("data", f"the data have {ours} {size}, and the model was trained on {theirs}")
    if _comparable(info) != _comparable(trained):
        text = f"the data have rows of shape {info.input_shape}, and the model was trained on {trained.input_shape}"
        raise JobError.at("data", text)


def _comparable(info: DataInfo) -> tuple[int, ...]:
    """The part of the shape of a sample that has to agree. Images and texts of other sizes can be measured too."""
    shape = info.input_shape
    if "language_modeling" in info.tasks:
        return ()
    return shape if len(shape) < 2 else (len(shape), shape[0])
