"""The reference of all keys is made from the schema, and is current."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from activelr_service.config import StudyJob, TrainJob
from activelr_service.config.problems import models_in
from activelr_service.config.reference import make_reference
from tests.conftest import ROOT


def test_the_job_reference_is_current():
    remedy = "python -m activelr_service.config.reference > docs/job-reference.md"
    assert Path(ROOT / "docs" / "job-reference.md").read_text() == make_reference(), remedy


def models_within(model: type[BaseModel]) -> set[type[BaseModel]]:
    inner = {found for field in model.model_fields.values() for found in models_in(field)}
    return {model} | {found for each in inner for found in models_within(each)}


# Sorted: every process of the suite must collect the same tests in the same order.
MODELS = sorted(models_within(TrainJob) | models_within(StudyJob), key=lambda model: model.__name__)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_key_is_described_by_a_sentence(model):
    for name, field in model.model_fields.items():
        assert name == "type" or (field.description or "").endswith((".", "`", ")")), f"{model.__name__}.{name}"
