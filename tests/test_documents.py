"""The documents say what is so: links, commands, options, files, jobs and messages that they name exist."""

import ast
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
import typer

from activelr_service.cli.app import app
from activelr_service.config import parse_job, parse_study
from activelr_service.config.yaml_file import parse_yaml
from docs.draw_imports import draw
from tests.conftest import ROOT

PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("configs/*/*.md")]
)
PART = "# part of a job"
COMMAND = typer.main.get_command(app)
ids = {"ids": lambda value: str(value.relative_to(ROOT)) if isinstance(value, Path) else None}


def blocks(page, *languages):
    found = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [text for language, text in found if language in languages]


def prose(page):
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page):
    titles = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def links(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" not in target and not target.startswith("mailto:"):
            yield target


def commands(page):
    """The words of each call of ``activelr`` in the blocks and in the text of a page."""
    lines = [line for text in blocks(page, "sh") for line in text.replace("\\\n", " ").splitlines()]
    lines += [" ".join(text.split()) for text in re.findall(r"`((?:\.venv/bin/)?activelr [^`]*)`", prose(page))]
    for line in lines:
        words = shlex.split(line, comments=True)
        for place, word in enumerate(words):
            if Path(word).name == "activelr":
                yield words[place + 1 :]


@pytest.mark.parametrize("page", PAGES, **ids)
def test_every_relative_link_and_its_anchor_exist(page):
    for target in links(page):
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{target}: no such file"
        assert not anchor or anchor in anchors(found), f"{target}: {found.name} has {sorted(anchors(found))}"


def test_the_readme_is_short_and_every_page_is_linked():
    readme = ROOT / "README.md"
    assert len(readme.read_text().splitlines()) <= 150
    linked = {(page.parent / target.partition("#")[0]).resolve() for page in PAGES for target in links(page)}
    assert set((ROOT / "docs").glob("*.md")) <= linked


@pytest.mark.parametrize("page", PAGES, **ids)
def test_every_command_of_a_document_exists_with_its_options(page):
    for words in commands(page):
        command = COMMAND
        rest = list(words)
        while rest and hasattr(command, "commands") and not rest[0].startswith("-"):
            name = rest.pop(0)
            assert name in command.commands, f"activelr {' '.join(words)}: there is no command {name}"
            command = command.commands[name]
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        asked = {word.partition("=")[0] for word in rest if word.startswith("-")}
        assert asked <= known | {"--help"}, f"activelr {' '.join(words)}: it takes {sorted(known)}"


@pytest.mark.parametrize("page", PAGES, **ids)
def test_every_file_of_the_repository_that_a_document_names_exists(page):
    named = re.findall(r"(?<![\w/.-])((?:configs|cluster|jobs|docs|tests|benchmarks)/[\w./-]*\w)", page.read_text())
    for name in named:
        places = (ROOT / name, page.parent / name)
        assert any(place.exists() for place in places), f"{name}: no such file"


# The job of extending.md needs the package on that page: tests/service/test_extending.py trains it.
@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "extending.md"], ids=lambda page: page.name)
def test_every_job_and_study_of_a_document_is_valid(page):
    for text in blocks(page, "yaml"):
        data = parse_yaml(text, page.name).data
        data.pop("presets", None)
        if text.startswith(PART):
            data |= {"kind": "train", "name": "part", "model": {"type": "mlp"}, "data": {"type": "digits"}}
            data |= {} if "budget" in data else {"epochs": 1}
        (parse_study if data["kind"] == "study" else parse_job)(data)


@pytest.mark.parametrize("page", PAGES, **ids)
def test_every_python_block_of_a_document_compiles_and_imports_what_exists(page):
    for text in blocks(page, "python"):
        for node in ast.walk(compile(text, str(page), "exec", ast.PyCF_ONLY_AST)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("activelr_service"):
                module = import_module(node.module)
                assert not [alias.name for alias in node.names if not hasattr(module, alias.name)]


def test_every_message_that_has_a_remedy_is_one_that_the_code_can_give():
    texts = "\n".join(text for path in (ROOT / "activelr_service").rglob("*.py") for text in texts_of(path))
    rows = re.findall(r"^\| (.*?) \|", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE)
    quoted = [message for row in rows for message in re.findall(r"`([^`]{12,})`", row)]
    assert len(quoted) > 30
    parts = [part.strip(" ;:(),") for message in quoted for part in message.split("...")]
    assert not [part for part in parts if part not in texts]


def texts_of(path):
    """Every text in the code of a file; the values in an f-string are left out, and texts side by side are one."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "..." for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_the_picture_of_the_imports_is_current():
    assert draw() in (ROOT / "docs" / "architecture.md").read_text(), "run: python docs/draw_imports.py"


@pytest.mark.parametrize("page", PAGES, **ids)
def test_no_sentence_of_a_document_is_longer_than_thirty_words(page):
    text = re.sub(r"\]\([^)]*\)", "]", prose(page))
    lines = [line for line in text.splitlines() if not line.startswith(("|", "#", "!"))]
    paragraphs = re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )", "\n".join(lines))
    sentences = [sentence for paragraph in paragraphs for sentence in re.split(r"(?<=[.!?:;])\s+", paragraph.strip())]
    too_long = [sentence for sentence in sentences if len(re.findall(r"[\w`'.-]*\w[\w`'.-]*", sentence)) > 30]
    assert not too_long, too_long
