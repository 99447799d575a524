"""What `cluster-up` knows of the processes it started: one that has ended is seen at once, with the end of its log."""

import json
import os
import subprocess
import sys
import time

import psutil
import pytest

from cluster import local


def recorded(folder, process):
    path = folder / "outputs" / ".cluster" / "ray"
    path.parent.mkdir(parents=True)
    path.with_suffix(".log").write_text("first\nValueError: the reason\n")
    created = psutil.Process(process.pid).create_time()
    path.with_suffix(".json").write_text(json.dumps({"pid": process.pid, "created": created}))
    return path


def test_a_process_that_has_died_is_not_waited_for_and_its_reason_is_shown(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it is a zombie now, since nobody has asked how it ended
    path = recorded(tmp_path, process)
    start = time.monotonic()
    with pytest.raises(SystemExit) as caught:
        local._wait("http://127.0.0.1:9", path)
    assert time.monotonic() - start < 10
    assert str(caught.value).splitlines() == ["ray has ended; the end of its log:", "first", "ValueError: the reason"]
    process.wait()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', '{"pid": "x", "created": 1}'])
def test_a_state_file_that_is_damaged_is_about_no_process_and_is_taken_away(tmp_path, text):
    path = tmp_path / "outputs" / ".cluster" / "ray.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert local._recorded_process(path) is None
    local.down(tmp_path)
    assert not path.exists()


def test_a_running_process_is_known_by_its_id_and_start(tmp_path):
    process = psutil.Process()
    path = recorded(tmp_path, process)
    assert local._recorded_process(path.with_suffix(".json")) == process


def test_a_process_that_ends_by_itself_while_it_is_ended_is_no_error():
    process = subprocess.Popen([sys.executable, "-c", ""])
    known = psutil.Process(process.pid)
    process.wait()
    local._end(known)
    assert not known.is_running()
