"""The model card says what a run knows, and shows names as they are, whatever signs they have."""

import json
import re
import shutil

import pytest
from markdown_it import MarkdownIt

from activelr_service.data.info import DataInfo
from activelr_service.runs.journal import write_journal
from activelr_service.runs.record import Record
from activelr_service.runs.run import Run
from activelr_service.service.model_card import _limits, escape, make_card, model_facts, write_card
from tests.export.conftest import write_table
from tests.inference.conftest import export

METRICS = {"val/accuracy": 0.75, "val/loss": 0.5, "val/count": 18.0, "train/loss": 0.25}
HARD = [
    "a_b_c",
    "*c*",
    "x | y",
    "<b>",
    "[a](b)",
    "`z`",
    "1. one",
    "- item",
    "# title",
    "~~no~~",
    "a\nb",
    "&amp;",
    "\\*",
]
NOTES = ("the column 'size | cm' has 12 missing values",)
WARNINGS = ("classes with one of the samples only (1 of 3): '*mid*'",)


def finished(folder, **state):
    """A run with two epochs, an exported model, and no training."""
    model, job, _ = export(folder, {"type": "table", "path": str(folder / "rows.csv"), "target": "y"}, temperature=1.7)
    run = Run(folder / "x" / "001")
    shutil.move(model, run.folder / "model")
    run.write_jobs(job, job)
    write_journal(run.journal, [Record(epoch, 10 * epoch, 1000 + epoch, METRICS, []) for epoch in (1, 2)])
    state = {"status": "finished", "best_epoch": 2, "score_name": "val/accuracy", "score": 0.75, **state}
    (run.folder / "run.json").write_text(json.dumps(state))
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("card")
    write_table(folder, "classification")
    return finished(folder)


@pytest.fixture(scope="module")
def info(run):
    data = json.loads((run.model / "recipe.json").read_text())["data"]
    return DataInfo.from_json(data)._replace(notes=NOTES, warnings=WARNINGS)


def text_of(card):
    """What a reader sees of a card: Markdown as it is rendered, without its tags."""
    html = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(card)
    text = re.sub(r"<[^>]*>", "", html)
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", '"').replace("&amp;", "&")


@pytest.mark.parametrize("name", HARD)
def test_a_name_is_shown_as_it_is(name):
    shown = " ".join(name.split())
    assert text_of(f"- {escape(name)}").strip() == shown
    assert shown in text_of(f"| a | b |\n| --- | --- |\n| {escape(name)} | 1 |\n")


def test_a_card_has_data_metrics_limits_training_and_how_to_load(run, info):
    text = text_of(make_card(run, info))
    for part in (
        "Classification of rows of a table",
        "3 classes: *mid*, large, small_one",
        *NOTES,
        *WARNINGS,
        "Epoch 2 of 2, the best one by val/accuracy",
        "accuracy\n0.75",
        "temperature 1.7",
        "No test split was measured",
        "active_adamw (robust rule)",
        "2 epochs, 20 optimizer steps",
        "activelr predict x/001 rows.csv --output answers.csv",
        'mlflow.pyfunc.load_model("models:/x@champion")',
    ):
        assert part in text, part
    assert "count\n" not in text


def test_a_detector_is_not_said_to_answer_every_image_with_a_class(run, info):
    limits = text_of("\n".join(_limits(run, info, "images", "detection")))
    assert "Every box has one of the classes above" in limits
    assert "Every answer" not in limits


def test_the_numbers_of_a_test_split_stand_beside_those_of_the_validation(run, info):
    run.update(test={"metrics": {"accuracy": 0.6123, "count": 20.0}, "sha256": "x"})
    card = make_card(run, info)
    run.update(test=None)
    assert "| metric | validation | test |" in card
    assert "| accuracy | 0.75 | 0.6123 |" in card
    assert "The test samples were not looked at before the end" in card


def test_mlflow_gets_the_card_the_score_and_the_metrics_of_validation_of_the_best_epoch(run, info):
    write_card(run, info)
    facts = model_facts(run, run.job())
    assert facts.card == (run.model / "README.md").read_text()
    assert (facts.epoch, facts.timestamp_ms, facts.score, facts.higher_is_better) == (2, 1002, 0.75, True)
    val = {name: value for name, value in METRICS.items() if name.startswith("val/")}
    assert facts.metrics == {"validation": val, "test": {}}
    assert facts.datasets["validation"] == "rows.csv, validation"
