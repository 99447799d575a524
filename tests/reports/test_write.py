"""The report as files: complete, self-contained, and never in the way of an odd table."""

import re
import warnings
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from activelr_service.reports import load_table, summary_lines, write_report
from activelr_service.reports.labels import short
from tests.reports.tables import study, table_of, trial

pytestmark = [pytest.mark.xdist_group("write"), pytest.mark.slow]

FIGURES = {"curves", "by_initial_lr", "by_batch_size", "curves_by_batch_size", "heat_map", "random_search"}


class Page(HTMLParser):
    """The tags, what they would load, and the heads and rows of the tables of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.loads, self.rows, self.in_cell = [], [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.loads += [value for name, value in attributes if name in ("src", "href", "srcset", "data")]
        self.in_cell = tag in ("td", "th")
        if tag == "tr":
            self.rows.append([])
        elif self.in_cell:
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self.in_cell = False

    def handle_data(self, data):
        if self.in_cell:
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    paths = write_report(study(("<b>x</b>", "y")), folder, "A <study>")
    return folder, paths


def test_every_file_is_there(report):
    folder, paths = report
    assert len(set(paths)) == len(paths)
    assert all(path.stat().st_size > 20 for path in paths)
    tables = {"results", "summary", "values", "pairs", "targets", "random_search", "profiles"}
    assert {path.stem for path in paths if path.suffix == ".csv"} == tables
    names = {f"{workload}_{name}" for workload in ("b_x_b", "y") for name in FIGURES} | {"performance_profiles"}
    for end in ("png", "svg"):
        assert {path.stem for path in (folder / "figures").glob(f"*.{end}")} == names
    for path in (folder / "figures").glob("*.png"):
        with Image.open(path) as picture:
            assert picture.width > 600
            assert np.asarray(picture.convert("L")).std() > 5


def test_the_written_table_can_be_loaded_again(report):
    folder, _ = report
    pd.testing.assert_frame_equal(load_table(folder / "results.csv"), load_table(folder / "results.parquet"))
    assert len(load_table(folder / "results.csv")) == len(study(("v", "w")))


def test_the_page_loads_nothing_and_runs_nothing(report):
    text = (report[0] / "report.html").read_text()
    page = Page(text)
    assert page.loads
    assert all(link.startswith("data:image/png;base64,") for link in page.loads)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert "url(" not in text
    assert "@import" not in text


def test_the_page_escapes_what_the_table_says(report):
    text = (report[0] / "report.html").read_text()
    assert "<b>" not in text
    assert "&lt;b&gt;x&lt;/b&gt;" in text
    assert "A &lt;study&gt;" in text


def test_the_page_says_what_diverged_and_failed_and_why(report):
    rows = Page((report[0] / "report.html").read_text()).rows
    assert any(row[1:3] == ["diverged", "y"] and row[-2:] == ["2", "loss is nan"] for row in rows)
    assert any(row[1:3] == ["failed", "y"] and row[-1] == "no data" for row in rows)


def test_sensitivity_is_never_shown_without_best_and_regret(report):
    heads = [row for row in Page((report[0] / "report.html").read_text()).rows if "sensitivity" in row]
    assert heads
    for head in heads:
        place = head.index("sensitivity")
        assert head[place - 1 : place + 2] == ["best", "sensitivity", "regret"]
    heads = [line for line in summary_lines(study()) if "sens" in line]
    assert heads
    assert all(re.search(r"best .* sens +regret", line) for line in heads)
    assert {"best", "sensitivity", "regret"} <= set(pd.read_csv(report[0] / "summary.csv"))


def test_a_flat_but_bad_optimizer_is_seen_to_be_bad(tmp_path):
    rows = [
        trial(label, rate, [score], untrained=0.1)
        for label, scores in (("flat", (0.3, 0.3)), ("good", (0.9, 0.7)))
        for rate, score in zip((0.1, 1.0), scores, strict=True)
    ]
    write_report(table_of(*rows), tmp_path, "flat")
    row = next(row for row in Page((tmp_path / "report.html").read_text()).rows if row[0] == "flat" and len(row) > 8)
    assert row[6:9] == ["0.3000", "0.0000", "0.6000"]
    line = next(line for line in summary_lines(table_of(*rows)) if line.startswith("flat"))
    assert line.split()[-6:] == ["0.3000", "0.3000", "0.0000", "0.0000", "0.6000", "0%"]


def test_the_summary_fits_into_120_columns():
    label = "active_adamw (schedule=cosine, weight_decay=0.05)"
    rows = [trial(label, 10.0**-place, [1234.5678 * place], workload="w" * 200) for place in range(1, 7)]
    lines = summary_lines(table_of(*rows))
    assert max(map(len, lines)) <= 120
    assert sum(line.startswith("active_adamw (schedule=co...") for line in lines) == 1
    many = [trial("a", 2.0**-place, [1e-5 * place]) for place in range(1, 30)]
    assert max(map(len, summary_lines(table_of(*many)))) <= 120


def test_the_many_values_of_a_random_search_are_left_to_the_report():
    rows = [trial("a", 2.0**-place, [1e-5 * place]) for place in range(1, 60)]
    assert len(summary_lines(table_of(*rows))) < 6
    assert len(summary_lines(table_of(*rows[:39]))) > 6


@pytest.mark.parametrize(
    ("number", "text"),
    [(85.3571, "85.36"), (0.85357, "0.8536"), (-0.85357, "-0.854"), (1884.295, "1884"), (0.000316, "3.2e-4")]
    + [(0.0, "0.0000"), (12345678.0, "1.2e7"), (-1e-10, "-1e-10"), (np.nan, "-"), (np.inf, "inf"), (9.99999, "10.00")],
)
def test_a_number_has_four_digits_in_six_characters(number, text):
    assert short(number) == text


ODD = {
    "all of an optimizer diverged": table_of(
        *(trial("a", rate, [0.5, np.nan], "diverged", 0.1) for rate in (0.1, 1.0)),
        *(trial("active_a", rate, [0.5, 0.6], untrained=0.1) for rate in (0.1, 1.0)),
    ),
    "all diverged, untrained model unknown": table_of(
        *(trial("a", rate, [0.5, np.nan], "diverged", batch_size=size) for rate in (0.1, 1.0) for size in (8, 16))
    ),
    "a single row": table_of(trial("a", 0.1, [0.5])),
    "no learning rates": table_of(*(trial(label, np.nan, [0.5, 0.6], batch_size=np.nan) for label in "ab")),
    "one that failed": table_of(trial("a", 0.1, [], "failed", np.nan)),
    "negative scores": table_of(*(trial("a", rate, [-rate, -2 * rate]) for rate in (0.1, 1.0))),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_table_makes_a_report_without_a_warning(tmp_path, name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paths = write_report(ODD[name], tmp_path, name)
        summary_lines(ODD[name])
    assert paths[-1].name == "report.html"
    assert all(path.is_file() for path in paths)


def test_the_same_table_writes_the_same_page(tmp_path):
    table = study(epochs=2)
    for name in ("a", "b"):
        write_report(table, tmp_path / name, "same")
    assert (tmp_path / "a" / "report.html").read_bytes() == (tmp_path / "b" / "report.html").read_bytes()
