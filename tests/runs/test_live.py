"""What is shown of a running epoch: a bar in a terminal, lines in a log, and readings that are tracked once."""

import io
import os

import pytest
from rich.console import Console

from activelr_service.runs.bar import Bar, describe_live, terminal_bar
from activelr_service.runs.console import reading_line
from activelr_service.runs.live import Live, ReadingsReader, append_reading, read_live, reading_rows
from activelr_service.runs.record import Record
from activelr_service.runs.run import Run
from tests.conftest import small_job

LIVE = Live(3, 120, 500, 1234.4, 80.0, 0.42134)


def reading(step, **metrics):
    place = {"perf/step_in_epoch": 5.0, "perf/steps_per_epoch": 1200.0}
    times = {"perf/samples_per_sec": 99.6, "perf/seconds_left": 3725.0, "perf/elapsed_seconds": 1800.0}
    return Record(2, step, 1000 + step, {**place, **times, **metrics}, [])


def test_the_place_of_a_run_is_read_as_it_was_written_and_damage_is_no_place(tmp_path):
    path = tmp_path / "live.json"
    assert read_live(path) is None
    LIVE.write(path)
    assert read_live(path) == LIVE
    for damage in ("", "{", "[]", '{"epoch": 1}'):
        path.write_text(damage)
        assert read_live(path) is None
    LIVE.write(tmp_path / "no folder" / "live.json")  # such as a full disk: nothing is raised


def test_the_bar_says_step_loss_speed_and_time_left_and_lines_stand_above_it():
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    bar, lines = Bar(console), []
    bar.show(LIVE)
    bar.above(lines.append)("epoch 2/20")
    bar.hide()
    assert lines == ["epoch 2/20"]
    drawn = console.file.getvalue()
    assert "epoch 3 " in drawn
    assert "epoch 0" not in drawn
    assert "120/500  loss 0.4213  1,234 samples/s  1m20s left" in drawn
    assert drawn.endswith("\x1b[2K"), "the bar is taken away"
    assert describe_live(LIVE._replace(loss=None)) == "120/500  1,234 samples/s  1m20s left"


def test_where_there_is_no_terminal_there_is_no_bar(monkeypatch):
    assert terminal_bar() is None
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "dumb")
    assert terminal_bar() is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "epoch 2/3  step 5/1,200  loss 0.5000  val acc 0.9100  100 samples/s  ETA 1h02m"),
        (
            {"epochs": None, "budget": {"time": "1h"}},
            "epoch 2  50 % of 1h  step 5/1,200  loss 0.5000  val acc 0.9100  100 samples/s  ETA 1h02m",
        ),
    ],
    ids=["epochs", "time"],
)
def test_a_reading_is_one_line(tmp_path, changes, expected):
    line = reading_line(reading(7, **{"train/loss": 0.5, "val/accuracy": 0.91}), small_job(tmp_path, **changes))
    assert line == expected


def test_readings_are_tracked_once_by_step_whatever_a_resumed_epoch_repeats_and_a_damaged_line_is_left_out(tmp_path):
    run = Run(tmp_path)
    assert ReadingsReader(run.readings).read() == []
    for step in (3, 6, 9):
        append_reading(run.readings, reading(step, **{"train/loss": 1 / step, "val/accuracy": 0.5, "val/count": 9.0}))
    with run.readings.open("a") as file:
        file.write("no json\n[1]\n")
    reader = ReadingsReader(run.readings)
    assert [found.global_step for found in reader.read()] == [3, 6, 9]
    for step in (6, 8, 9, 12):  # a resumed epoch
        append_reading(run.readings, reading(step, **{"train/loss": 1 / step}))
    with run.readings.open("a") as file:
        file.write('{"epoch": 3')  # still being written
    assert [found.global_step for found in reader.read()] == [3, 6, 9, 6, 8, 9, 12]
    rows = reading_rows(reader.read())
    assert [row["step"] for row in rows] == [3, 6, 9, 12]
    place = {"epoch": 2, "step": 3, "timestamp_ms": 1003}
    assert rows[0] == {**place, "train/loss_by_step": 1 / 3, "val/accuracy_by_step": 0.5}
    assert [row["step"] for row in reading_rows(reader.read(), after=8)] == [9, 12]
    assert os.path.exists(run.readings)
