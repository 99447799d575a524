"""``activelr serve``: MLflow's own server on loopback answers what the model answers, and leaves nothing behind."""

import base64
import json
import signal
import subprocess
import time
import urllib.error
import urllib.request

import psutil
import pytest

from activelr_service.inference.predictor import Predictor
from tests.conftest import ACTIVELR, PATIENCE_S, activelr, free_port
from tests.export.conftest import export_table
from tests.inference.conftest import export


class Server:
    """``activelr serve`` of a model, and the lines that it printed before it answered."""

    def __init__(self, folder, log):
        self.folder, self.port = folder, free_port()
        command = [*ACTIVELR, "serve", str(folder), "--port", str(self.port)]
        with log.open("wb") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, cwd=log.parent)
        deadline = time.monotonic() + PATIENCE_S
        while "  curl " not in log.read_text():
            assert self.process.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        self.curl = next(line.strip() for line in log.read_text().splitlines() if line.startswith("  curl "))

    def post(self, **body):
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/invocations",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:  # noqa: S310 - http
            return json.loads(answer.read(), parse_constant=pytest.fail)["predictions"]

    def end(self, number):
        """Send a signal; returns the exit code, and what is alive of the processes that there were."""
        started = psutil.Process(self.process.pid).children(recursive=True)
        assert len(started) >= 1
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE_S)
        return code, [child for child in started if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


def serve(folder, tmp_path):
    server = Server(folder, tmp_path / "serve.log")
    try:
        yield server
    finally:
        if server.process.poll() is None:
            assert server.end(signal.SIGTERM) == (128 + signal.SIGTERM, [])


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("served")
    yield from serve(export_table(tmp_path, "classification")[0], tmp_path)


def same(found, expected):
    expected = expected.to_dict("records")
    assert len(found) == len(expected)
    for one, right in zip(found, expected, strict=True):
        assert one.keys() == right.keys()
        for name, value in right.items():
            assert one[name] == (pytest.approx(value, rel=1e-6) if isinstance(value, float) else value)
    return True


@pytest.mark.slow
@pytest.mark.xdist_group("serve")
def test_rows_as_records_and_as_split_are_answered_as_by_the_model(table):
    predictor = Predictor.load(table.folder)
    rows = predictor.example()
    plain = rows.astype(object).where(rows.notna(), None)
    expected = predictor.predict(rows)
    assert same(table.post(dataframe_records=plain.to_dict("records")), expected)
    split = {name: part for name, part in plain.to_dict("split").items() if name != "index"}
    assert same(table.post(dataframe_split=split), expected)


@pytest.mark.slow
@pytest.mark.xdist_group("serve")
def test_the_line_that_is_printed_can_be_pasted_into_a_shell(table):
    answer = subprocess.run(["bash", "-c", table.curl], capture_output=True, check=True).stdout
    predictor = Predictor.load(table.folder)
    assert same(json.loads(answer)["predictions"], predictor.predict(predictor.example().head(1)))


@pytest.mark.slow
@pytest.mark.xdist_group("serve")
def test_a_bad_row_is_named_the_others_are_answered_and_the_answer_is_json(table):
    good = {"age": 30, "size | cm": None, "place": "elsewhere"}
    bad, fine = table.post(dataframe_records=[{**good, "age": "old"}, {**good, "extra": 1}])
    assert bad["error"] == "column 'age': 'old' is no number"
    assert bad["prediction"] is None
    assert fine["prediction"] in Predictor.load(table.folder).classes
    assert fine["error"] is None


@pytest.mark.slow
@pytest.mark.xdist_group("serve")
def test_a_missing_column_is_refused_by_name(table):
    with pytest.raises(urllib.error.HTTPError) as caught:
        table.post(dataframe_records=[{"age": 30, "place": "d"}])
    assert caught.value.code == 400
    assert "missing inputs ['size | cm']" in json.loads(caught.value.read())["message"]


@pytest.mark.slow
@pytest.mark.xdist_group("serve")
def test_a_port_that_is_taken_is_refused_in_one_line(table):
    result = activelr("serve", table.folder, "--port", table.port)
    assert result.returncode == 2
    assert result.stderr.strip().splitlines() == [
        f"activelr: nothing can be served at 127.0.0.1:{table.port}: Address already in use; name another port with "
        "--port or another address with --host"
    ]


@pytest.mark.slow
@pytest.mark.xdist_group("serve")
def test_ctrl_c_ends_the_server_and_images_are_taken_as_base64_and_never_as_paths(tmp_path):
    folder = export(tmp_path, {"type": "digits", "image_size": 8})[0]
    server = Server(folder, tmp_path / "serve.log")
    try:
        predictor = Predictor.load(folder)
        rows = predictor.example()
        encoded = [{"image": base64.b64encode(image).decode()} for image in rows["image"]]
        assert same(server.post(dataframe_records=encoded), predictor.predict(rows))
        (tmp_path / "image.png").write_bytes(rows["image"][0])
        request = urllib.request.Request(
            f"http://127.0.0.1:{server.port}/invocations",
            f"image\n{tmp_path / 'image.png'}\n".encode(),
            {"Content-Type": "text/csv"},
        )
        answer = urllib.request.urlopen(request).read()  # noqa: S310 - http
        (answer,) = json.loads(answer)["predictions"]
        assert answer["prediction"] is None
        assert "cannot be decoded" in answer["error"]
    finally:
        code, alive = server.end(signal.SIGINT)
    assert (code, alive) == (128 + signal.SIGINT, [])


def test_what_is_no_model_is_one_line(tmp_path):
    result = activelr("serve", tmp_path / "nothing", "--output-dir", tmp_path)
    assert (result.returncode, len(result.stderr.strip().splitlines())) == (2, 1)
    result = activelr("serve", "models:/nothing/1", "--output-dir", tmp_path)
    assert (result.returncode, len(result.stderr.strip().splitlines())) == (2, 1)
    assert list(tmp_path.iterdir()) == []
