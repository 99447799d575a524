"""Predicting with a run whose model was exported before models carried their preprocessing."""

import json

import pandas as pd
import pytest

from activelr_service.cli import main
from activelr_service.errors import CommandError
from activelr_service.export.model import RECIPE
from activelr_service.service.predict import find_device
from tests.service.test_evaluate import SHADES, exported, write_shades


def test_a_run_of_an_earlier_version_predicts_by_its_resolved_job(tmp_path):
    root = write_shades(tmp_path / "data", SHADES, count=4)
    run, _ = exported(tmp_path, {"type": "imagefolder", "root": str(root), "image_size": 8})
    assert "inputs" not in json.loads((run.model / RECIPE).read_text())
    with pytest.raises(SystemExit) as ended:
        main(["predict", str(run.folder), str(root), "--output", str(tmp_path / "o.csv")])
    assert ended.value.code == 0
    answers = pd.read_csv(tmp_path / "o.csv")
    assert len(answers) == 16
    assert set(answers["prediction"]) <= set(SHADES)


def test_a_device_that_is_not_there_is_one_line():
    with pytest.raises(CommandError, match=r"--device: there is no device 'cuda:99' here: [^\n]*$"):
        find_device("cuda:99")
