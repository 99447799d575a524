"""The memory of a worker: what a container's limit leaves, under both versions of control groups."""

import psutil
import pytest

from activelr_service.training.monitors import available_memory

GIB = 2**30
FILES = {
    2: ("", ("memory.max", "memory.current", "inactive_file")),
    1: ("memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")),
}


def write_group(tmp_path, version, folder, limit, used, cached=0):
    """A control group and the line of /proc/self/cgroup that names ``/jobs/mine`` as that of this process."""
    kind, (name_limit, name_used, name_cached) = FILES[version]
    path = tmp_path / "mounts" / kind / folder
    path.mkdir(parents=True, exist_ok=True)
    (path / name_limit).write_text(f"{limit}\n")
    (path / name_used).write_text(f"{used}\n")
    (path / "memory.stat").write_text(f"anon 5\n{name_cached} {cached}\n")
    (tmp_path / "cgroup").write_text(
        "3:cpu:/elsewhere\n" + ("0::/jobs/mine\n" if version == 2 else "4:memory:/jobs/mine\n")
    )


def available(tmp_path):
    return available_memory(tmp_path / "cgroup", tmp_path / "mounts")


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("folder", ["jobs/mine", "jobs", "."])
def test_the_limit_of_a_group_or_of_one_above_it_holds_and_cached_files_count_as_free(tmp_path, version, folder):
    write_group(tmp_path, version, folder, GIB, GIB // 2, GIB // 8)
    assert available(tmp_path) == GIB - GIB // 2 + GIB // 8


@pytest.mark.parametrize("version", [1, 2])
def test_the_smallest_of_several_limits_holds_and_a_full_group_has_nothing_left(tmp_path, version):
    write_group(tmp_path, version, ".", GIB, 0)
    write_group(tmp_path, version, "jobs/mine", GIB // 2, GIB)
    assert available(tmp_path) == 0


@pytest.mark.parametrize(("version", "limit"), [(2, "max"), (1, 9223372036854771712)])
def test_without_a_limit_it_is_what_the_machine_has_free(tmp_path, version, limit):
    write_group(tmp_path, version, "jobs/mine", limit, GIB)
    assert available(tmp_path) == pytest.approx(psutil.virtual_memory().available, rel=0.2)
    assert available_memory(tmp_path / "none", tmp_path) == pytest.approx(psutil.virtual_memory().available, rel=0.2)
