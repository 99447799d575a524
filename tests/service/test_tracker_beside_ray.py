"""The tracker opens in a thread while the main thread starts Ray; its errors, and a stop meanwhile, are not lost."""

import os
import signal
import threading
from functools import partial

import pytest

from activelr_service.errors import TrackingError
from activelr_service.service.tracker_beside_ray import open_while_ray_starts
from activelr_service.tracking.client import connect
from activelr_service.tracking.store import embedded_store, open_tracker
from activelr_service.tracking.tracker import NoTracker
from tests.conftest import small_job
from tests.training.test_loop import resolved


def test_the_tracker_opens_beside_the_main_thread(tmp_path):
    threads = []

    def open_it():
        threads.append(threading.current_thread())
        return NoTracker()

    assert isinstance(open_while_ray_starts(open_it, resolved(small_job(tmp_path))), NoTracker)
    assert threads[0] is not threading.main_thread()


def test_a_server_that_does_not_answer_is_said(tmp_path):
    opening = partial(open_tracker, "http://127.0.0.1:1", "x", "x/001", tmp_path)
    with pytest.raises(TrackingError, match=r"127\.0\.0\.1:1"):
        open_while_ray_starts(opening, resolved(small_job(tmp_path)))


@pytest.mark.slow
def test_a_stop_while_the_tracker_opens_leaves_no_run_that_seems_to_go_on(tmp_path):
    opened = []
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets processes in the background ignore it

    def open_it():
        opened.append(open_tracker(embedded_store(tmp_path), "x", "x/001", tmp_path))
        os.kill(os.getpid(), signal.SIGINT)  # the main thread waits by now
        return opened[0]

    with pytest.raises(KeyboardInterrupt):
        open_while_ray_starts(open_it, resolved(small_job(tmp_path)))
    assert connect(opened[0].uri).get_run(opened[0].run_id).info.status == "KILLED"
