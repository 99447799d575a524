"""Commands about a Ray cluster, over its Jobs API."""

import asyncio
import os
import shlex
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from activelr_service.config import CommandError, JobError, TrainJob, dump_job

LOOPBACK = ("127.0.0.1", "localhost", "::1")
ENTRYPOINT = ["python", "-m", "activelr_service.cli", "train", "job.yaml"]


def submit_job(address: str, job: TrainJob, *, follow: bool, insecure: bool) -> None:
    """Send a validated job, as one YAML file, and say how to follow it."""
    from activelr_service.driver.check import check_before_start, with_absolute_paths

    if not _is_loopback(address) and urlsplit(address).scheme != "https" and not insecure:
        raise JobError.at(
            "", f"{address} is another machine and not https: its token would be readable; --insecure allows it"
        )
    job = with_absolute_paths(job)
    if _is_loopback(address):
        check_before_start(job)  # elsewhere the data may be on the cluster only
    submission_id = f"{job.name}-{uuid.uuid4().hex[:8]}"
    with connect(address) as client, tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "job.yaml").write_text(dump_job(job))
        client.submit_job(
            entrypoint=shlex.join(ENTRYPOINT),
            submission_id=submission_id,
            runtime_env={"working_dir": folder, "env_vars": {"ACTIVELR_SUBMISSION_ID": submission_id}},
            metadata={"activelr_name": job.name},
        )
    print(f"submitted {submission_id} to {address}")
    for command in ("status", "logs --follow", "stop"):
        print(f"  activelr {command} {submission_id} --address {address}")
    if follow:
        show_logs(address, submission_id, follow=True)


def show_status(address: str, submission_id: str) -> None:
    with connect(address) as client:
        details = client.get_job_info(submission_id)
    print(f"{submission_id}: {details.status.value}")
    if details.message:
        print(details.message.strip().splitlines()[0])


def show_logs(address: str, submission_id: str, follow: bool) -> None:
    """Print the log; with ``follow`` until the job ends, and then fail if it failed."""
    with connect(address) as client:
        if not follow:
            return print(client.get_job_logs(submission_id), end="")
        asyncio.run(_tail(client, submission_id))
        status = client.get_job_status(submission_id)
    if status.value != "SUCCEEDED":
        raise CommandError(f"{submission_id}: {status.value}")
    return None


def stop_job(address: str, submission_id: str) -> None:
    with connect(address) as client:
        stopped = client.stop_job(submission_id)
    print(f"{submission_id} " + ("is asked to stop" if stopped else "had ended already"))


def list_jobs(address: str) -> None:
    with connect(address) as client:
        jobs = sorted(client.list_jobs(), key=lambda details: details.start_time or 0)
    for details in jobs:
        print(f"{details.submission_id or details.job_id}  {details.status.value}  {details.entrypoint}")


@contextmanager
def connect(address: str) -> Iterator[Any]:
    """A Jobs client; what goes wrong with it becomes one line that says what to do."""
    _use_token_of_this_machine(address)
    os.environ["RAY_API_SERVER_ADDRESS"] = address  # Ray prefers the environment to the argument
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    try:
        yield JobSubmissionClient(address)
    except AuthenticationError as error:
        hint = "set RAY_AUTH_MODE=token, and the token in RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token"
        raise CommandError(f"the cluster at {address} refused this client's token or lack of one; {hint}") from error
    except ConnectionError as error:
        raise CommandError(f"no Ray cluster answers at {address}; `make cluster-up` starts one here") from error
    except RuntimeError as error:
        text = str(error).strip().splitlines()
        raise CommandError(f"the cluster at {address} says: {(text or ['nothing'])[-1][:300]}") from error


async def _tail(client: Any, submission_id: str) -> None:
    async for lines in client.tail_job_logs(submission_id):
        print(lines, end="", flush=True)


def _is_loopback(address: str) -> bool:
    return urlsplit(address).hostname in LOOPBACK


def _use_token_of_this_machine(address: str) -> None:
    """Ray's clients send a token only if told to; to this machine there is no reason not to."""
    has_token = "RAY_AUTH_TOKEN" in os.environ or (Path.home() / ".ray" / "auth_token").exists()
    if _is_loopback(address) and has_token:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
