"""Addresses of clusters: each that cannot be used is one line, within seconds."""

import os
import signal
import socket
import sys
import tempfile
import time

import pytest
from ray._private import utils

from activelr_service.cli import cluster_commands
from activelr_service.cli.cluster_commands import dashboard_url
from activelr_service.errors import ClusterError, CommandError
from activelr_service.service import ray_cluster
from activelr_service.service.ray_cluster import check_address, init_ray, use_short_temp_dir


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("http://127.0.0.1:8265", "a dashboard is for `activelr submit --address`"),
        ("ray://127.0.0.1:10001", r"on a machine of the cluster use HOST:PORT or auto"),
        ("nonsense", "use HOST:PORT"),
        ("host:port", "use HOST:PORT"),
        (":6379", "use HOST:PORT"),
        ("me:canary@host:6379", r"^RAY_ADDRESS=\*\*\*@host:6379: use HOST:PORT"),
    ],
)
def test_what_is_no_address_of_a_cluster_is_refused(address, expected):
    with pytest.raises(CommandError, match=expected):
        check_address(address)


def test_nobody_at_an_address_is_said_at_once():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        with pytest.raises(ClusterError, match="no Ray cluster answers at RAY_ADDRESS=127"):
            check_address(f"127.0.0.1:{probe.getsockname()[1]}")


def test_somebody_else_at_an_address_is_no_cluster(monkeypatch):
    monkeypatch.setattr(ray_cluster, "ANSWER_S", 1)
    with socket.create_server(("127.0.0.1", 0)) as deaf, pytest.raises(ClusterError, match="no Ray cluster answers"):
        check_address(f"127.0.0.1:{deaf.getsockname()[1]}")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("HTTP://LOCALHOST:8265", "http://localhost:8265"),
        ("http://Host.Example:8265/", "http://host.example:8265"),
        ("127.0.0.1:8265", "http://127.0.0.1:8265"),
        ("localhost", "http://localhost"),
        ("https://[::1]:8265", "https://[::1]:8265"),
    ],
)
def test_a_dashboards_address_is_read_as_people_write_it(address, expected):
    assert dashboard_url(address) == expected


@pytest.mark.parametrize(
    "address", ["ray://host:10001", "http://", "http://host:99999", "http://me:x@host:8265", "a b://"]
)
def test_what_is_no_dashboards_address_is_refused(address):
    with pytest.raises(CommandError) as caught:
        dashboard_url(address)
    assert ":x@" not in str(caught.value)


def test_a_server_that_is_no_dashboard_and_never_answers_is_given_up(monkeypatch):
    monkeypatch.setattr(cluster_commands, "ANSWER_S", 1)
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE"):
        monkeypatch.setenv(name, "")
    with socket.create_server(("127.0.0.1", 0)) as deaf, pytest.raises(CommandError, match="no Ray cluster answers at"):
        cluster_commands.list_jobs(f"127.0.0.1:{deaf.getsockname()[1]}")


def test_the_path_of_temporary_files_is_short_enough_for_sockets(tmp_path, monkeypatch, capsys):
    long = tmp_path / ("t" * 90)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.setattr(tempfile, "tempdir", None)
    use_short_temp_dir()
    assert len(tempfile.gettempdir()) < 10
    assert "is too long for sockets" in capsys.readouterr().out
    use_short_temp_dir()
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(tempfile, "tempdir", None)


def test_a_signal_that_comes_where_python_ignores_exceptions_ends_the_start_of_ray(monkeypatch):
    class Finalized:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)

    def start(**options):
        utils.set_sigterm_handler(lambda number, frame: sys.exit(number))  # as Ray does
        Finalized()

    def stop(number, frame):
        sys.exit(143)

    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    monkeypatch.setattr("ray.init", start)
    monkeypatch.setattr("sys.unraisablehook", lambda ignored: None)
    before = signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(SystemExit) as caught:
            init_ray()
        assert caught.value.code == 143
        assert signal.getsignal(signal.SIGTERM) is stop
    finally:
        signal.signal(signal.SIGTERM, before)
