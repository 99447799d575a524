"""Data in a bucket: copied once into the cache, whence every worker reads them as any other data."""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

from activelr_service.config import JobError

FIELDS = ("root", "path", "val_path")


def is_remote(config: Any) -> bool:
    """Whether the data have to be fetched before they can be looked at."""
    return bool(_remote_fields(config))


def fetch(config: Any, cache: Path) -> Any:
    """The config with local copies of what it names by URI (``s3://``, ``gs://``, ``hdfs://``, ``file://``).

    A copy that is there is used again; it is complete, since it gets its name when the last file has come. Credentials are
    those of the machine, as pyarrow finds them. Raises :class:`JobError` if there is nothing or it cannot be read.
    """
    copies = {field: str(_copy(uri, field, cache)) for field, uri in _remote_fields(config).items()}
    return config.model_copy(update=copies)


def _remote_fields(config: Any) -> dict[str, str]:
    values = {field: getattr(config, field, None) for field in FIELDS}
    return {field: value for field, value in values.items() if isinstance(value, str) and "://" in value}


def _copy(uri: str, field: str, cache: Path) -> Path:
    import pyarrow as pa
    from pyarrow import fs

    folder = cache / f"remote-{hashlib.sha256(uri.encode()).hexdigest()[:16]}"
    local = folder / uri.rstrip("/").rsplit("/", 1)[-1]
    if folder.exists():
        return local
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        filesystem, path = fs.FileSystem.from_uri(uri)
        if filesystem.get_file_info(path).type == fs.FileType.NotFound:
            raise JobError.at(f"data.{field}", f"there is nothing at {uri}")
        fs.copy_files(path, str(temporary / local.name), source_filesystem=filesystem)
    except (pa.ArrowException, OSError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise JobError.at(f"data.{field}", f"{uri} cannot be read: {' '.join(str(error).split())[:300]}") from error
    os.rename(temporary, folder)
    return local
