"""The MLflow store in the output folder: any folder will do, and several processes may begin it at once."""

import shutil
import subprocess
import sys

import pytest
from mlflow import MlflowClient

from activelr_service.tracking.store import DATABASE, embedded_store, open_tracker

pytestmark = [pytest.mark.xdist_group("store"), pytest.mark.slow]

CREATE = """
import sys
from pathlib import Path
from activelr_service.tracking.store import embedded_store, open_tracker
root = Path(sys.argv[1])
open_tracker(embedded_store(root), "exp", sys.argv[2], root)
"""


@pytest.fixture(scope="module")
def begun_at_once(tmp_path_factory):
    """A folder in which three processes have begun the same store at the same time."""
    root = tmp_path_factory.mktemp("together") / "new"
    command = [sys.executable, "-c", CREATE, str(root)]
    processes = [subprocess.Popen([*command, name], stderr=subprocess.PIPE, text=True) for name in "abc"]
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], errors
    return root


def test_processes_that_begin_the_same_store_at_once_all_succeed(begun_at_once):
    client = MlflowClient(embedded_store(begun_at_once))
    experiment = client.get_experiment_by_name("exp")
    assert sorted(run.info.run_name for run in client.search_runs([experiment.experiment_id])) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "name", ["a b", "x%20y", "100%", "why?", "n#1", 'it\'s "quoted"', "a@b:c", "größe", "a&b=c;d+e"]
)
def test_a_store_and_its_files_are_in_the_output_folder_whatever_it_is_called(begun_at_once, tmp_path, name):
    root = tmp_path / name
    root.mkdir()
    shutil.copy(begun_at_once / DATABASE, root)  # to begin one takes seconds
    tracker = open_tracker(embedded_store(root), "other", "run", root)
    (root / "note.txt").write_text("kept")
    tracker.log_artifacts(root, [root / "note.txt"])
    (kept,) = (root / "mlartifacts").rglob("note.txt")
    assert kept.read_text() == "kept"
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert [file.path for file in MlflowClient(embedded_store(root)).list_artifacts(tracker.run_id)] == ["note.txt"]
