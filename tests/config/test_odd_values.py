"""Whatever stands where in a job or a study: it is read, or it is a JobError with lines, never a traceback."""

import copy
import json
from contextlib import suppress

import pytest

from activelr_service.config import dump_job, load_job, read_study
from activelr_service.config.yaml_file import dump_yaml, parse_yaml
from activelr_service.errors import JobError
from activelr_service.studies.space import make_trials

ODD = [None, [], {}, [1], [[]], [None], {"a": 1}, {"type": None}, {"type": [1]}, "x", "", 1, -1.5, True]

JOB = {
    "kind": "train",
    "name": "small",
    "model": {"type": "mlp", "hidden": [8]},
    "data": {"type": "table", "path": "t.csv", "target": "y", "ignore": ["id"]},
    "budget": {"steps": 3},
    "optimizer": {"type": "active_sgd", "lr": 0.1, "rule": "paper"},
    "workers": {"num_workers": 1},
    "tracking": {"experiment": "e"},
    "preset": "one",
    "presets": {"one": {"seed": 3}},
}
STUDY = {
    "kind": "study",
    "name": "small",
    "workloads": {"a": {"model": {"type": "mlp"}, "data": {"type": "digits"}, "epochs": 2}},
    "optimizers": ["adamw", {"type": "sgd", "lr": 0.1}],
    "baselines": [{"type": "prodigy"}],
    "sweeps": [{"optimizer.lr": {"from": 1e-3, "to": 1e-1}, "only": ["sgd"]}, {"global_batch_size": [16, 32]}],
    "seeds": [0, 1],
    "trials": {"num_workers": 1},
}


def places(document, at=()):
    """The paths of everything in a document."""
    items = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in items:
        yield (*at, key)
        if isinstance(value, dict | list):
            yield from places(value, (*at, key))


def replaced(document, place, value):
    changed = copy.deepcopy(document)
    inner = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return changed


def read(document, path):
    path.write_text(json.dumps(document))
    if "workloads" in document:
        make_trials(read_study(path)[0])
    else:
        load_job(path)


@pytest.mark.parametrize("document", [JOB, STUDY], ids=["job", "study"])
def test_an_odd_value_anywhere_is_read_or_refused_in_words(document, tmp_path):
    read(document, tmp_path / "it.yaml")
    for place in places(document):
        for value in ODD:
            try:
                with suppress(JobError):
                    read(replaced(document, place, value), tmp_path / "it.yaml")
            except Exception as error:
                raise AssertionError(f"{place}: {value!r} ends in {error!r}") from error


@pytest.mark.parametrize("value", ODD, ids=repr)
@pytest.mark.parametrize("key", ["preset", "presets", "optimizer", "kind", "data.type", "optimizer.type", "name.x"])
def test_an_odd_value_of_set_is_read_or_refused_in_words(tmp_path, key, value):
    (tmp_path / "job.yaml").write_text(json.dumps(JOB))
    with suppress(JobError):
        load_job(tmp_path / "job.yaml", [f"{key}={json.dumps(value)}"])


def test_a_name_alone_is_an_optimizer_with_its_defaults(tmp_path):
    (tmp_path / "job.yaml").write_text(json.dumps({**JOB, "optimizer": "active_sgd"}))
    assert load_job(tmp_path / "job.yaml").optimizer.type == "active_sgd"
    assert load_job(tmp_path / "job.yaml", ["optimizer=adamw"]).optimizer.type == "adamw"
    with pytest.raises(JobError, match=r'optimizer\.type: unknown type .activesgd.; did you mean "active_sgd"'):
        load_job(tmp_path / "job.yaml", ["optimizer=activesgd"])


@pytest.mark.parametrize("name", ["mlflow.db", "MLflow.DB", "mlflow.db.lock", "mlartifacts", "studies", "analyses"])
def test_a_job_cannot_be_called_as_a_file_that_is_in_every_output_folder(tmp_path, name):
    (tmp_path / "job.yaml").write_text(json.dumps({**JOB, "name": name}))
    with pytest.raises(JobError, match=r"name: must be another one"):
        load_job(tmp_path / "job.yaml")


TEXTS = [
    "1e-3",
    "12e3",
    "1_000",
    "0o7",
    "0x1f",
    "010",
    "12:30",
    "2020-01-01",
    "1.",
    ".5",
    "+1",
    "-0",
    "9" * 18,
    "9" * 30,
]
TEXTS += ["yes", "no", "on", "off", "y", "null", "~", "Null", "true", "True", "false", ".nan", "nan", ".inf", "=", "<<"]
TEXTS += [
    "",
    " ",
    " a",
    "a ",
    "\ta",
    "a\n",
    "\na",
    "a\nb",
    "a\r\nb",
    "a\x85b",
    "\u2028a",
    "\ufeffa",
    "größe",
    "日本",
    "😀",
]
TEXTS += [
    "a: b",
    "a:",
    "a #b",
    "#a",
    "- a",
    "-",
    "?",
    "!x",
    "&a",
    "*a",
    "@a",
    "`a",
    "%a",
    "---",
    "...",
    "{a",
    "[a]",
    ",",
]
TEXTS += ["'", '"', "'a'", '"a"', "\\", "\\n", "|", ">", "\x07", "\x1b[0m", "a" * 300 + " " + "b" * 300]


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_a_text_is_the_same_text_after_it_was_written_and_read(text, tmp_path):
    document = {"value": text, "list": [text, [text]], "inside": {"a": {"b": text}}, text: 1}
    assert parse_yaml(dump_yaml(document), "here").data == document
    data = {"type": "table", "path": "t.csv", "target": "y", "classes": ["a", text]}
    (tmp_path / "job.yaml").write_text(json.dumps({**JOB, "data": data}))
    job = load_job(tmp_path / "job.yaml")
    (tmp_path / "again.yaml").write_text(dump_job(job))
    assert load_job(tmp_path / "again.yaml") == job


@pytest.mark.parametrize("number", [1e-3, 1e16, 1e300, 5e-324, 0.1, -1e-7, -0.0, 10**17, -5])
def test_a_number_is_the_same_number_after_it_was_written_and_read(number):
    read_back = parse_yaml(dump_yaml({"value": number}), "here").data["value"]
    assert (read_back, type(read_back)) == (number, type(number))
