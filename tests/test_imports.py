"""Imports go one way, and checking a job stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "activelr_service"

# What each part of the package may import of it. Anything may import ``errors``.
ALLOWED = {
    "errors": set(),
    "redact": set(),
    "optim": set(),
    "tasks": {"config"},
    "config": {"optim", "redact"},
    "analyses": {"optim"},
    "data": {"config", "redact"},
    "models": {"config", "data"},
    "integrations": {"optim", "training"},
    "runs": {"config", "redact"},
    "tracking": {"redact"},
    "export": {"models", "tracking"},
    "inference": {"data", "export"},
    "pyfunc": {"inference"},
    "reports": set(),
    "playground": set(),
    "training": {"config", "data", "models", "optim", "runs", "tasks"},
    "service": {"analyses", "config", "data", "export", "inference", "models", "runs", "tracking", "training"},
    "studies": {"config", "data", "reports", "runs", "service", "tracking", "training"},
    "cli": {"config", "playground", "redact", "runs", "service", "studies", "tracking"},
}
ARROWS_PER_ROOM = 2.5  # at most, without those to ``errors``
LIBRARIES = {
    "ray": {
        "training/worker.py",
        "service/ray_cluster.py",
        "service/ray_run.py",
        "studies/tune.py",
        "cli/cluster_commands.py",
    },
    "mlflow": {
        "tracking/system_metrics.py",
        *("pyfunc.py", "tracking/client.py", "tracking/mlflow_model.py", "tracking/registry.py", "tracking/tracker.py"),
    },
    "torch": {"analyses", "integrations", "optim", "training", "tasks", "studies/trial.py"},
}


def imports_of(path, top_level_only=False):
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part_of(path):
    return Path(path.relative_to(PACKAGE).parts[0]).stem


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    for name in imports_of(path):
        parts = name.split(".")
        if parts[0] == "activelr_service" and parts[1] != "__version__":
            assert parts[1] == part_of(path) or parts[1] in {"errors", *ALLOWED[part_of(path)]}, name


def test_the_rooms_have_few_arrows_and_each_that_is_allowed_is_needed():
    arrows = {
        (part_of(path), name.split(".")[1])
        for path in FILES
        for name in imports_of(path)
        if name.startswith("activelr_service.") and name.split(".")[1] not in (part_of(path), "errors", "__version__")
    }
    assert {(room, other) for room, others in ALLOWED.items() for other in others} == arrows
    assert len(arrows) < ARROWS_PER_ROOM * len(ALLOWED)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_ray_and_mlflow_stay_in_their_files(path):
    relative = str(path.relative_to(PACKAGE))
    for name in imports_of(path):
        library = name.split(".")[0]
        if library in ("ray", "mlflow"):
            assert relative in LIBRARIES[library], name


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_torch_is_imported_at_the_top_only_where_it_is_the_subject(path):
    relative = path.relative_to(PACKAGE)
    if any(name.split(".")[0] == "torch" for name in imports_of(path, top_level_only=True)):
        assert relative.parts[0] in LIBRARIES["torch"] or str(relative) in LIBRARIES["torch"]


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import activelr_service", {"torch", "ray", "mlflow", "pydantic"}),
        ("import activelr_service.config", {"torch", "ray", "mlflow", "numpy"}),
        ("import activelr_service.cli", {"torch", "ray", "mlflow"}),
        ("import activelr_service.data, activelr_service.models", {"torch", "ray", "mlflow"}),
        ("import activelr_service.optim", {"ray", "mlflow", "pydantic", "torchvision"}),
    ],
)
def test_an_import_stays_light(statement, absent):
    code = f"{statement}; import sys; print(' '.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not absent & set(loaded)
