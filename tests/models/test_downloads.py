"""Downloads: once, by one process at a time, and only of what has the hash in its name. The server is on this machine."""

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from activelr_service.errors import JobError
from activelr_service.models.downloads import torch_file

CONTENT = b"weights" * 1000


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The address of a server of the files in a folder, the folder, and the list of what is asked for."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    folder, asked = tmp_path / "served", []
    folder.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            asked.append(self.command)

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", folder, asked
        running.shutdown()


def test_a_file_is_downloaded_once_also_if_several_ask_for_it(server, tmp_path):
    address, folder, asked = server
    name = f"net-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"
    (folder / name).write_bytes(CONTENT)
    with ThreadPoolExecutor(4) as threads:
        paths = list(threads.map(lambda _: torch_file(f"{address}/{name}", "model.weights"), range(4)))
    assert set(paths) == {tmp_path / "torch" / "hub" / "checkpoints" / name}
    assert paths[0].read_bytes() == CONTENT
    assert asked.count("GET") == 1


def test_a_file_that_is_cut_off_or_missing_is_refused_and_not_kept(server):
    address, folder, _ = server
    (folder / "net-00000000.pth").write_bytes(CONTENT)
    for name, reason in (("net-00000000.pth", "invalid hash value"), ("gone-11111111.pth", "HTTP Error 404")):
        with pytest.raises(JobError, match=rf"model\.weights: {address}/{name} is not on this .*{reason}") as caught:
            torch_file(f"{address}/{name}", "model.weights")
        assert "\n" not in str(caught.value)
        with pytest.raises(JobError):  # nothing was kept of the first time
            torch_file(f"{address}/{name}", "model.weights")
