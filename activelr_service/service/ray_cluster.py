"""The Ray cluster of a training: one that is running, or a new one on this machine for this process only."""

import logging
import math
import os
import secrets
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from activelr_service.errors import ClusterError, CommandError, DeadlineError
from activelr_service.service.resolve import Resources
from activelr_service.tracking.deadline import timed_call, within

POLL_INTERVAL_S = "0.5"  # how soon Ray Train notices a finished or lost worker; its default is 2
LOOPBACK_ONLY = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # 0: Ray keeps to loopback, on Linux too
CONNECT_S, ANSWER_S = 5, 10
OWN_HEAD_GONE_S, HEAD_GONE_S = 2, 40  # Ray itself ends a process whose head node is gone for 60 seconds, without a word
LONGEST_TEMP_DIR = 36  # bytes: Ray adds 70 for its sockets, whose paths may have 107 on Linux


def is_attached() -> bool:
    """Whether there is a cluster to use: this process joined one, or $RAY_ADDRESS names one (as in every Ray job)."""
    import ray

    return ray.is_initialized() or _names_cluster()


def find_resources() -> Resources:
    """The CPUs and GPUs of the cluster, or without one of this machine. Raises the errors of :func:`init_ray`."""
    import ray
    import torch

    if not is_attached():
        return Resources(len(os.sched_getaffinity(0)), torch.cuda.device_count())
    init_ray()
    total = ray.cluster_resources()
    return Resources(int(total.get("CPU", 0)), int(total.get("GPU", 0)), is_shared=True)


def init_ray(num_cpus: int | None = None) -> None:
    """Join the cluster that $RAY_ADDRESS names, or start one on this machine that only this process can use.

    The handlers of signals are kept. Raises :class:`CommandError` if the address is not valid, and :class:`ClusterError` if
    nothing answers there or Ray does not start.
    """
    import ray

    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", POLL_INTERVAL_S)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
    if is_attached():
        options["address"] = check_address(os.environ["RAY_ADDRESS"])
    else:
        use_short_temp_dir()
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # Ray turns token authentication on for it
        logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
        options |= {"address": "local", "num_cpus": num_cpus}
    try:
        with _signals_as_they_are():
            ray.init(**options)
    except Exception as error:
        what = "Ray does not start" if options["address"] == "local" else f"the Ray cluster at {options['address']}"
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ClusterError(f"{what}: {reason[:500]}") from error


def check_address(address: str) -> str:
    """HOST:PORT of the cluster that an address names, after it has answered.

    Raises :class:`CommandError` if the address is not valid, and :class:`ClusterError` if nothing answers within seconds.
    """
    scheme, has_scheme, _ = address.partition("://")
    if has_scheme:
        hint = "a dashboard is for `activelr submit --address`; " if scheme.startswith("http") else ""
        raise CommandError(f"RAY_ADDRESS={address}: {hint}on a machine of the cluster use HOST:PORT or auto")
    if address == "auto":
        address = _running_here()
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "@" in host:
        shown = f"***@{address.rpartition('@')[2]}" if "@" in address else address
        raise CommandError(f"RAY_ADDRESS={shown}: use HOST:PORT, such as 10.0.0.1:6379, or auto")
    if not _is_head_there(_as_ray_reads(address)):
        if _is_head_there(address):  # Ray takes 127.0.0.1 for the address that other machines see
            text = f"the cluster at RAY_ADDRESS={address} is on this machine's loopback only"
            raise CommandError(f"{text}; set {LOOPBACK_ONLY}=0 as well, as its jobs have it")
        text = f"no Ray cluster answers at RAY_ADDRESS={address}"
        raise ClusterError(f"{text}; start it, or unset RAY_ADDRESS to do without")
    return address


def check_room(num_workers: int, needs: dict[str, float]) -> None:
    """Raise :class:`ClusterError` if the nodes have no room for so many workers. Ray would wait without end."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    room = sum(min(int(node.get(kind, 0) // amount) for kind, amount in needs.items()) for node in nodes)
    if room < num_workers:
        each = " and ".join(f"{amount:g} {kind}" for kind, amount in needs.items())
        text = f"{num_workers} workers with {each} each do not fit into this cluster, which has room for {room}"
        raise ClusterError(f"{text}; use one that has, or train with fewer or smaller `workers` under another name")


def use_short_temp_dir() -> None:
    """Put temporary files into /tmp if the path of $TMPDIR is too long for the sockets of Ray and of loader processes."""
    path = tempfile.gettempdir()
    if len(os.fsencode(path)) > LONGEST_TEMP_DIR:
        os.environ["TMPDIR"] = "/tmp"  # noqa: S108 - each process makes a folder of its own there
        tempfile.tempdir = None
        print(f"temporary files are in /tmp: the path of {path} is too long for sockets", flush=True)


class HeadWatch:
    """Calls ``on_gone`` once, from a thread, when the head of the cluster has not answered for so long that Ray gives up."""

    def __init__(self, on_gone: Callable[[], None]) -> None:
        self.on_gone = on_gone
        self._done = threading.Event()

    def __enter__(self) -> None:
        import ray

        address = ray.get_runtime_context().gcs_address
        threading.Thread(target=self._watch, args=(address,), daemon=True).start()

    def __exit__(self, *error: object) -> None:
        self._done.set()

    def _watch(self, address: str) -> None:
        limit = HEAD_GONE_S if _names_cluster() else OWN_HEAD_GONE_S
        gone_since = math.inf
        while not self._done.wait(1):
            gone_since = math.inf if _can_connect(address) else min(gone_since, time.monotonic())
            if time.monotonic() - gone_since > limit:
                return self.on_gone()
        return None


def _names_cluster() -> bool:
    return os.environ.get("RAY_ADDRESS", "") not in ("", "local")


def _running_here() -> str:
    try:
        return _as_ray_reads("auto")
    except (ConnectionError, ValueError):
        raise ClusterError(
            "RAY_ADDRESS=auto: no Ray cluster runs on this machine; start it, or unset RAY_ADDRESS"
        ) from None


def _as_ray_reads(address: str) -> str:
    """The address as Ray changes it. Ray has no public function for that, and none that tells whether a head answers."""
    from ray._private.services import canonicalize_bootstrap_address

    found = canonicalize_bootstrap_address(address)
    if found is None:
        raise ValueError(f"no address: {address}")
    return str(found)


def _is_head_there(address: str) -> bool:
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.exceptions import RpcError

    if not _can_connect(address):
        return False
    try:
        with within(ANSWER_S):
            timed_call(lambda: GcsClient(address=address))
    except (DeadlineError, RpcError):
        return False
    return True


def _can_connect(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S):
            return True
    except (OSError, OverflowError):
        return False


@contextmanager
def _signals_as_they_are() -> Iterator[None]:
    """Keep the handlers of signals while Ray starts.

    Ray replaces the handler of SIGTERM by an exit with the code 15, and has no public option against it. An exception of a
    handler is lost where Python ignores exceptions, as in a finalizer: it is raised again at the end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    from ray._private import utils

    ended: list[SystemExit] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: FrameType | None) -> None:
        handler = before[signal.Signals(number)]
        try:
            handler(number, frame) if callable(handler) else sys.exit(128 + number)
        except SystemExit as error:
            ended.append(error)
            raise

    set_by_ray, utils.set_sigterm_handler = utils.set_sigterm_handler, lambda handler: None
    for number in before:
        signal.signal(number, note)
    try:
        yield
    finally:
        utils.set_sigterm_handler = set_by_ray
        for number, handler in before.items():
            signal.signal(number, handler)
    if ended:
        raise ended[0]
