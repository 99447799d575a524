"""Data in a bucket. They are copied into the cache once, and all workers read the copy."""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock

from activelr_service.data.fingerprint import FIELDS
from activelr_service.errors import JobError
from activelr_service.redact import redact


def is_remote(config: Any) -> bool:
    """Whether the config names data by URI, which must be copied before they can be read."""
    return bool(_remote_fields(config))


def fetch(config: Any, cache: Path) -> Any:
    """Copy what the config names by URI (``s3://``, ``gs://``, ``hdfs://``, ``file://``) and return it with the local paths.

    A copy that exists is used again. It is complete, because it is renamed to its name after its last file was copied.
    pyarrow finds the credentials of the machine; a job never holds any. Options of the file system, such as ``?region=``,
    may follow the path. Raises :class:`JobError` if there is nothing at the URI or it cannot be read.
    """
    copies = {field: str(_copy(uri, field, cache)) for field, uri in _remote_fields(config).items()}
    return config.model_copy(update=copies)


def _remote_fields(config: Any) -> dict[str, str]:
    values = {field: getattr(config, field, None) for field in FIELDS}
    return {field: value for field, value in values.items() if isinstance(value, str) and "://" in value}


def _copy(uri: str, field: str, cache: Path) -> Path:
    """The path of the local copy. A lock makes sure that two jobs do not copy it twice."""
    folder = cache / f"remote-{hashlib.sha256(uri.encode()).hexdigest()[:16]}"
    local = folder / _local_name(uri)
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if folder.exists():
            return local
        temporary = folder.with_name(f".{folder.name}")
        shutil.rmtree(temporary, ignore_errors=True)  # left by a process that was killed
        temporary.mkdir()
        try:
            _download(uri, field, temporary / local.name)
            os.rename(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return local


def _download(uri: str, field: str, target: Path) -> None:
    import pyarrow as pa
    from pyarrow import fs

    shown = redact(uri)
    try:
        filesystem, path = fs.FileSystem.from_uri(uri)
        kind = filesystem.get_file_info(path).type
        if kind == fs.FileType.NotFound:
            raise JobError.at(f"data.{field}", f"there is nothing at {shown}")
        if kind == fs.FileType.Directory:
            target.mkdir()  # pyarrow makes only the folders below it
        fs.copy_files(path, str(target), source_filesystem=filesystem, destination_filesystem=fs.LocalFileSystem())
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, JobError):
            raise
        reason = redact(" ".join(str(error).split()))[:300]
        raise JobError.at(f"data.{field}", f"{shown} cannot be read: {reason}") from None


def _local_name(uri: str) -> str:
    """The last part of the path, with its suffix, which tells the format; ``data`` if there is no last part."""
    parts = urlsplit(uri)
    name = (parts.path.rstrip("/") or parts.netloc.rpartition("@")[2]).rsplit("/", 1)[-1]
    return "data" if name in ("", ".", "..") else name
