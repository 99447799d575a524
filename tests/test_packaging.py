"""What is installed without an extra, and what is said of a package that is not there."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions, requires

import pytest

from activelr_service.errors import EXTRAS
from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# Runs a program as if nothing but the dependencies without an extra were installed.
WITHOUT_EXTRAS = """\
import sys
from importlib.machinery import PathFinder

class Installed(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {missing} else PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Installed
sys.argv = {arguments}
{program}
"""
COMMAND = "from activelr_service.cli import main; main()"
OPTIMIZER = """\
import torch
from activelr_service.optim import ActiveAdamW
model = torch.nn.Linear(2, 1)
optimizer = ActiveAdamW(model.parameters(), rule="robust", total_steps=10)
for _ in range(10):
    optimizer.zero_grad()
    model(torch.ones(4, 2)).square().mean().backward()
    optimizer.step()
print(model(torch.ones(1, 2)).isfinite().item())
"""
API = """\
import activelr_service
job = activelr_service.load_job("configs/quickstart.yaml")
print(job.name, callable(activelr_service.load_model))
try:
    activelr_service.train(job)
except ImportError as error:
    print(error)
"""


def without_extras(program, *arguments, missing=frozenset()):
    missing = missing.union(*EXTRAS.values())
    code = WITHOUT_EXTRAS.format(missing=missing, arguments=["activelr", *arguments], program=program)
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300, check=False)


def test_the_optimizers_need_no_extra():
    result = without_extras(OPTIMIZER)
    assert (result.returncode, result.stdout) == (0, "True\n"), result.stderr


def test_the_python_functions_need_no_extra_or_say_which():
    result = without_extras(API)
    assert result.returncode == 0, result.stderr
    assert result.stdout == (
        "digits True\n"
        "`activelr_service.train` needs ray, which is not installed; run `pip install 'activelr-service[train]'`\n"
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--help"], "Usage: activelr"),
        (["schema"], '"properties"'),
        (["list"], "MLflow run"),
        (
            ["validate", "configs/quickstart.yaml"],
            "is valid as it is written: digits, 20 epochs; its data and model are ",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_a_command_can_do_without_an_extra_it_does(arguments, expected):
    result = without_extras(COMMAND, *arguments)
    assert result.returncode == 0, result.stderr
    assert expected in result.stdout


@pytest.mark.parametrize(
    ("arguments", "package"),
    [
        (["train", "configs/quickstart.yaml"], "ray"),
        (["study", "configs/studies/invariance.yaml"], "pandas"),
        (["report", "results.csv"], "pandas"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_command_that_needs_the_extra_says_in_one_line_how_to_install_it(arguments, package):
    result = without_extras(COMMAND, *arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr == (
        f"activelr: `activelr {arguments[0]}` needs {package}, which is not installed; "
        "run `pip install 'activelr-service[train]'`\n"
    )


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [
        ("trainer", "accelerate", "transformers"),
        ("lightning", "lightning", "lightning"),
        ("timm", "timm", "timm"),
    ],
)
def test_an_integration_says_in_one_line_how_to_install_its_trainer(module, package, extra):
    name = f"activelr_service.integrations.{module}"
    result = without_extras(f"import {name}", missing={"pytorch_lightning"})
    assert result.returncode == 1
    assert result.stderr.endswith(
        f"`{name}` needs {package}, which is not installed; run `pip install 'activelr-service[{extra}]'`\n"
    )


def test_the_plain_loop_needs_no_extra():
    assert without_extras("import activelr_service.integrations.loop").returncode == 0


def test_an_import_that_fails_for_another_reason_is_not_hidden():
    result = without_extras(
        "import activelr_service.errors as e\nwith e.naming_missing_packages('x'): import no_such_one"
    )
    assert "No module named 'no_such_one'" in result.stderr
    assert "pip install" not in result.stderr


def names_of(requirements):
    return {re.split(r"[\[<>=~!;, ]", requirement)[0].lower().replace("_", "-") for requirement in requirements}


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_packages_of_an_extra_are_those_that_pyproject_names(extra):
    required = names_of(PROJECT["optional-dependencies"][extra])
    found = [{name.lower().replace("_", "-") for name in packages_distributions()[module]} for module in EXTRAS[extra]]
    assert all(names & required for names in found)
    assert required <= set().union(*found)


def test_every_package_that_is_imported_is_a_dependency():
    brought = {"triton"}  # by torch's CUDA builds: it is imported only where it is
    assert brought <= names_of(requires("torch"))
    base = names_of(PROJECT["dependencies"]) | brought
    distributions = packages_distributions()
    for path in sorted((ROOT / "activelr_service").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for module in {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"activelr_service"}:
                in_an_extra = any(module in modules for modules in EXTRAS.values())
                assert in_an_extra or distributions[module][0].lower() in base, f"{module} in {path}"
