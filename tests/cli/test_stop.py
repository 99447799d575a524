"""`activelr stop` asks the process of the run, and no other one whatever is written in its state."""

import json
import os
import signal
import socket
import subprocess
import sys

import psutil
import pytest

from activelr_service.cli.stop import stop_run
from activelr_service.errors import CommandError
from activelr_service.runs.run import Run
from tests.conftest import activelr


@pytest.fixture
def bystander():
    """A process that has nothing to do with any run."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield psutil.Process(process.pid)
    process.kill()
    process.wait()


def run_with(folder, **state):
    path = folder / "digits" / "001"
    path.mkdir(parents=True)
    (path / "run.json").write_text(json.dumps({"status": "running", "attempts": 1, **state}))
    return Run(path)


def process_state(process):
    return {"pid": process.pid, "pid_started": process.create_time(), "host": socket.gethostname()}


def test_the_process_of_the_run_is_asked_to_end(tmp_path, bystander):
    stop_run(run_with(tmp_path, **process_state(bystander)))
    assert bystander.wait(timeout=30) in (-signal.SIGTERM, None)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"pid": -1}, "its process -1 has ended"),
        ({"pid": "1"}, "its process 1 has ended"),
        ({"host": "another"}, "runs on another, and this is .*; run `activelr stop` there"),
        ({"pid_started": 1.0}, "is not running: process .* is another one by now; `activelr resume"),
        ({"pid_started": None}, "does not look like that of digits/001"),
        ({"status": "finished"}, "is not running; its status is finished"),
        ({"status": "interrupted"}, "is not running; its status is interrupted"),
    ],
    ids=["negative", "text", "host", "start", "no start", "finished", "interrupted"],
)
def test_a_process_that_is_not_the_runs_is_left_alone(tmp_path, bystander, change, expected):
    run = run_with(tmp_path, **{**process_state(bystander), **change})
    with pytest.raises(CommandError, match=expected):
        stop_run(run)
    assert bystander.is_running()


def test_a_process_that_is_gone_or_a_zombie_is_said_to_have_ended(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    state = process_state(psutil.Process(process.pid))
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it is a zombie now
    run = run_with(tmp_path, **state)
    for _ in range(2):
        with pytest.raises(CommandError, match=r"its process \d+ has ended; `activelr resume digits/001` continues it"):
            stop_run(run)
        process.wait()


CLEARED = """
import os, sys, time
from activelr_service.cli.stop import exit_on_signals

class Cleared:
    def __del__(self):
        os.kill(os.getpid(), int(sys.argv[1]))
        time.sleep(0.01)

exit_on_signals()
Cleared()
time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_arrives_while_an_object_is_cleared_away_still_ends_the_process(number):
    command = [sys.executable, "-c", CLEARED, str(int(number))]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 128 + number
    assert ended.stderr == "\nstopping; a second Ctrl-C ends it at once\n"


def test_a_damaged_run_is_listed_with_its_reason_beside_the_others(tmp_path):
    broken = run_with(tmp_path, host="x")
    (broken.folder / "run.json").write_text('{"status": "runn')
    other = tmp_path / "other" / "001"
    other.mkdir(parents=True)
    (other / "run.json").write_text("")
    listed = activelr("list", "--output-dir", tmp_path)
    assert listed.returncode == 0, listed.stderr
    lines = listed.stdout.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["digits/001", "damaged"], ["other/001", "damaged"]]
    assert "run.json" in lines[1]
    shown = activelr("status", "digits", "--output-dir", tmp_path)
    assert shown.returncode == 2
    assert shown.stderr.startswith("activelr: run digits/001 is damaged: run.json")


def test_the_version_is_said():
    assert activelr("--version").stdout.startswith("activelr 0.")
