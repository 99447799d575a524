"""The paper's analyses: what they claim comes out of their tables, and what the paper claims is checked in them."""

import csv
import math

import pytest
from PIL import Image

from activelr_service.analyses import ANALYSES, carbon, descents, gain_operations, theorems
from activelr_service.analyses.descents import CRITICAL_POINTS, classify
from activelr_service.cli import study_commands
from activelr_service.data.info import DataInfo
from activelr_service.export.model import write_recipe
from activelr_service.runs.journal import write_journal
from activelr_service.runs.record import Record
from activelr_service.runs.run import Run
from activelr_service.service.analyze import analyze, analyze_run
from activelr_service.tracking.client import connect
from tests.conftest import activelr

pytestmark = pytest.mark.slow

DIGITS = DataInfo(("classification",), 1437, 360, (3, 32, 32), num_classes=10)


@pytest.mark.parametrize("name", ANALYSES)
def test_an_analysis_leaves_a_table_a_picture_and_an_mlflow_run(tmp_path, name, monkeypatch):
    monkeypatch.setattr(theorems, "TRIALS_4_1", 10)
    monkeypatch.setattr(theorems, "TRIALS_5_1", 10)
    lines = analyze(name, tmp_path, track=True)
    folder = tmp_path / "analyses" / name
    with (folder / f"{name}.csv").open() as file:
        assert len(list(csv.DictReader(file))) >= 2
    with Image.open(folder / f"{name}.png") as picture:
        assert picture.width > 600
    assert str(folder / f"{name}.png") in "\n".join(lines)
    client = connect(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("activelr-analyses")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {f"{name}.csv", f"{name}.png"}


def test_the_paper_s_pair_of_operations_settles_at_mean_1_and_deviation_0_3():
    table = [row for row in gain_operations.compute() if row["epoch"] > 2000]
    own = [row for row in table if row["pair"] == "multiply by 0.9, add 0.1"]
    assert sum(row["mean"] for row in own) / len(own) == pytest.approx(1, abs=0.01)
    assert sum(row["deviation"] for row in own) / len(own) == pytest.approx(math.sqrt(1 / 9.5), abs=0.01)
    assert all(row["not_positive"] == 0 for row in own)
    assert all(
        row["vanished"] == 1
        for row in table
        if row["pair"] == "multiply by 0.9, multiply by 1.1" and row["epoch"] > 9000
    )
    for pair in ("subtract 0.1, add 0.1", "subtract 0.1, multiply by 1.1"):
        assert all(row["not_positive"] > 0.3 for row in table if row["pair"] == pair)


def test_the_gain_grows_while_the_sign_stays_and_shrinks_while_it_changes():
    rows = [row for row in descents.compute_signs() if row["optimizer"] == "ActiveSGD"]
    for case, lr in descents.CASES.items():
        gains = [row["gain"] for row in rows if row["case"] == case][2:10]
        assert gains == sorted(gains, reverse=lr > 0.5)
        assert len(set(gains)) == len(gains)


def test_of_the_paper_s_three_minima_one_is_a_minimum():
    assert [classify(*point) for point in CRITICAL_POINTS] == ["a saddle point", "a minimum", "a saddle point"]
    assert classify(1.0, 1.0) == "not critical"


def test_theorem_4_1_holds_where_its_assumption_does_and_not_elsewhere(monkeypatch):
    monkeypatch.setattr(theorems, "TRIALS_4_1", 40)
    table = theorems.compute_4_1()
    assert all(row["bound_holds"] == 1 for row in table)
    assert all(row["inner_product"] == 1 for row in table if row["sum_falls"] == 1)
    assert any(row["same_sign"] < 0.8 for row in table if row["start"] == "near the optimum")
    assert any(row["same_sign"] < 1 for row in table if row["dimensions"] == 10 and row["sum_falls"] == 1)


def test_theorem_5_1_s_bound_always_holds_and_its_sign_does_not(monkeypatch):
    monkeypatch.setattr(theorems, "TRIALS_5_1", 200)
    table = theorems.compute_5_1()
    assert all(row["bound_holds"] == 1 for row in table)
    assert all(row["better"] >= row["not_negative"] for row in table)
    assert any(row["not_negative"] < 1 for row in table)


def test_the_paper_s_carbon_is_that_of_one_of_its_four_gpus():
    one, four = carbon.compute()
    assert one["hours"] == pytest.approx(61.11, abs=0.005)
    assert one["kg"] == pytest.approx(7.92, abs=0.005)
    assert four["kg"] == pytest.approx(31.68, abs=0.005)
    assert four["tflop"] == pytest.approx(13_816_000)


def run_of(folder, **metrics):
    run = Run(folder / "digits" / "001")
    run.folder.mkdir(parents=True)
    (run.folder / "resolved.yaml").write_text(
        "kind: train\nname: digits\nmodel: {type: mlp}\ndata: {type: digits}\nepochs: 2\nworkers: {num_workers: 2}\n"
        "task: classification\ntracking: {uri: 'sqlite:///mlflow.db'}\n"
    )
    (run.folder / "run.json").write_text('{"status": "finished"}')
    run.model.mkdir()
    write_recipe(run.model, run.job().model, DIGITS, "classification", sha256="")
    metrics = {"perf/epoch_seconds": 1800.0, "perf/samples": 1000.0, **metrics}
    write_journal(run.journal, [Record(e, e, 0, metrics, []) for e in (1, 2)])
    return run


@pytest.mark.parametrize(
    ("metrics", "watts", "kwh", "energy"),
    [
        ({}, 65, 0.065, "1 x 65 W"),
        ({}, None, 0.1, "1 x 100 W"),
        ({"perf/energy_joules": 3.6e5}, 65, 0.2, "measured by NVML"),
    ],
)
def test_a_run_is_accounted_for_by_measured_energy_where_there_is_any(tmp_path, metrics, watts, kwh, energy):
    run = run_of(tmp_path, **metrics)
    lines = analyze_run(run, tmp_path, 9, watts, track=False)
    assert energy in lines[0]
    with (tmp_path / "analyses" / "carbon" / "digits" / "001" / "carbon.csv").open() as file:
        own, search = csv.DictReader(file)
    assert float(own["kwh"]) == pytest.approx(kwh)
    assert float(search["kg"]) == pytest.approx(9 * kwh * 0.432)
    # the multilayer perceptron of the recipe: 3 passes x 2 operations a weight x 1,000 rows x 2 epochs
    assert float(own["tflop"]) == pytest.approx(3 * 2 * (3072 * 64 + 64 * 64 + 64 * 10) * 2000 / 1e12)


@pytest.mark.parametrize("command", ["analyze", "analyse"])  # the second is the name up to version 0.1
def test_the_commands_print_what_was_found(tmp_path, command):
    result = activelr(command, "carbon", "--no-track", "--output-dir", str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert "61.11 h x 0.3 kW x 0.432 kg/kWh = 7.92 kg" in result.stdout
    assert activelr(command, "carbon", "--run", "nothing", "--output-dir", str(tmp_path)).returncode == 2


def test_the_command_line_offers_every_analysis():
    offered = {command.name or command.callback.__name__ for command in study_commands.analyses.registered_commands}
    assert offered == set(ANALYSES)
