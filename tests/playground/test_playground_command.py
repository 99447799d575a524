"""``activelr playground`` as a user meets it."""

import os

import pytest

from activelr_service.playground import PAGE
from tests.conftest import activelr

pytestmark = pytest.mark.slow

SCREENS = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
NO_SCREEN = {name: value for name, value in os.environ.items() if name not in SCREENS}


def test_it_prints_its_path():
    assert activelr("playground", "--path").stdout == f"{PAGE}\n"
    assert PAGE.read_text().startswith("<!doctype html>")


def test_it_opens_the_page_in_the_browser_that_the_user_names(tmp_path):
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    browser.chmod(0o755)
    result = activelr("playground", env={**NO_SCREEN, "BROWSER": f"{browser} %s"})
    assert (tmp_path / "opened").read_text() == f"{PAGE.as_uri()}\n"
    assert result.stdout == f"opened {PAGE} in the browser\n"


def test_without_a_browser_it_says_so_and_prints_the_path():
    result = activelr("playground", env=NO_SCREEN)
    assert result.returncode == 0
    assert result.stdout == f"{PAGE}\n"
    assert result.stderr == "no browser found here; open this file in one, or copy it to a machine that has one:\n"
