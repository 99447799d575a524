"""The page as somebody sees it: opened from its file in a real Chromium."""

import re
import shutil
from io import BytesIO

import pytest
from PIL import Image

from activelr_service.playground import PAGE
from tests.playground.page_script import HOW_TO_INSTALL

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
KEEPS_LINK_MS = 250  # the page writes its link 150 ms after a change

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason=f"Chromium {HOW_TO_INSTALL}"),
]


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser):
    """Opens the page with a link; at the end nothing may be in its console, and nothing but the file was asked for."""
    contexts, faults, addresses = [], [], []

    def open_it(link="", **options):
        contexts.append(browser.new_context(**{"viewport": DESKTOP, "reduced_motion": "reduce", **options}))
        page = contexts[-1].new_page()
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: addresses.append(request.url.partition("#")[0]))
        page.goto(PAGE.as_uri() + link)
        page.wait_for_function("document.getElementById('sweep-table').children.length > 0")
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert not faults
    assert {url for url in addresses if not url.startswith("data:")} == {PAGE.as_uri()}


def picture(page, name):
    return Image.open(BytesIO(page.locator(f"#{name}").screenshot())).convert("RGB")


def drawing(page, name):
    """What the canvas itself holds, without what lies over it."""
    return page.locator(f"#{name}").evaluate("(canvas) => canvas.toDataURL()")


def set_slider(page, name, value):
    page.locator(f"#{name}").evaluate("(e, v) => { e.value = v; e.dispatchEvent(new Event('input')); }", str(value))


def link_of(page):
    page.wait_for_timeout(KEEPS_LINK_MS)
    return "#" + page.evaluate("location.hash.slice(1)")


def test_the_page_is_one_small_file():
    text = PAGE.read_text()
    assert len(text.encode()) <= 150_000
    assert not re.findall(r"<(?:link|script|img|iframe)[^>]*(?:src|href)=\"(?!data:,)", text)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pictures_are_not_blank(open_page, scheme):
    page = open_page(color_scheme=scheme)
    for name, fewest in (("map", 500), ("loss", 40), ("gains", 20), ("sweep", 40)):
        assert len(picture(page, name).getcolors(10**6)) > fewest, name
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background))) > 384) == (scheme == "light")


def test_every_slider_changes_the_pictures(open_page):
    page = open_page("#f=quadratic&lr=0.01&noise=1&batch=4&steps=100&race=sgd,adamp,adamr&look=adamp")
    moves = {"lr": -1, "noise": 3, "batch": 0, "steps": 12, "time": 10}
    for name, value in moves.items():
        before = {seen: drawing(page, seen) for seen in ("map", "loss", "gains")}
        set_slider(page, name, value)
        for seen, old in before.items():
            assert drawing(page, seen) != old, f"{name} left {seen} as it was"


def test_the_sweep_is_drawn_anew_with_the_settings_and_shows_the_learning_rate_at_once(open_page):
    page = open_page("#f=quadratic&noise=1&batch=4&steps=100&race=sgd,adamp,adamr")
    before, table = drawing(page, "sweep"), page.locator("#sweep-table").inner_text()
    set_slider(page, "lr", 0)
    assert drawing(page, "sweep") != before
    set_slider(page, "steps", 2)
    page.wait_for_function("(old) => document.getElementById('sweep-table').innerText !== old", arg=table)


def test_the_start_is_dragged_tapped_and_moved_by_keys(open_page):
    page = open_page(has_touch=True)
    links = [link_of(page)]
    page.locator("#map").evaluate("(map) => map.scrollIntoView({ block: 'center' })")
    ring, area = page.locator("#start"), page.locator("#map").bounding_box()
    box = ring.bounding_box()
    page.mouse.move(box["x"] + 22, box["y"] + 22)
    page.mouse.down()
    page.mouse.move(area["x"] + 100, area["y"] + 100, steps=4)
    page.mouse.up()
    links.append(link_of(page))
    ring.press("ArrowRight")
    links.append(link_of(page))
    page.touchscreen.tap(area["x"] + 250, area["y"] + 60)
    links.append(link_of(page))
    starts = [re.search("start=([^&]*)", link)[1] for link in links]
    assert len(set(starts)) == 4


def test_a_link_restores_the_state(open_page):
    page = open_page()
    page.get_by_role("button", name="Noisy quadratic").click()
    page.locator("#race-sgd").uncheck()
    page.locator("#race-sgdr").check()
    page.locator("#look-sgdr").check()
    for name, value in (("lr", -2.5), ("steps", 9), ("noise", 1.5), ("batch", 3), ("time", 120)):
        set_slider(page, name, value)
    page.get_by_role("button", name="Draw other examples").click()
    set_slider(page, "time", 77)
    link = link_of(page)
    copy = open_page(link)
    assert link_of(copy) == link
    for name in ("map", "loss", "gains", "sweep"):
        assert drawing(copy, name) == drawing(page, name), name


def test_what_a_link_asks_for_in_vain_is_named(open_page):
    page = open_page("#f=saddle&lr=400&race=adam,rprop&zoom=2")
    assert page.locator("#said").inner_text() == (
        "This page does not know lr=400, race=adam,rprop, zoom=2, which the link asks for. It took its default instead."
    )


@pytest.mark.parametrize("width", [390, 320])
def test_on_a_phone_nothing_is_wider_than_the_screen(open_page, width):
    page = open_page(viewport={**PHONE, "width": width}, is_mobile=True, has_touch=True)
    for button in page.locator("#stories button, #functions button").all():
        button.click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width, button.inner_text()


def test_a_story_plays_to_its_end_and_every_one_of_them_is_told(open_page):
    page = open_page(reduced_motion="no-preference")
    page.get_by_role("button", name="The shelf").click()
    page.wait_for_function("+document.getElementById('time').value > 20")
    page.get_by_role("button", name="Pause the race").click()
    assert page.locator("#time").input_value() != "400"
    for button in page.locator("#stories button").all():
        button.click()
        assert len(page.locator("#telling").inner_text()) > 100


def test_four_race_at_most_and_the_page_says_so(open_page):
    page = open_page("#race=sgd,adam,prodigy")
    page.locator("#race-free").check()
    assert page.locator("#race input[type=checkbox]:enabled").count() == 4
    assert page.locator("#four").inner_text() == "four at most: untick one to add another"


def test_the_sweep_is_flat_under_the_robust_rule_and_a_valley_for_adam(open_page):
    page = open_page("#f=mse&steps=400&race=adam,adamp,adamr")
    rows = [row.inner_text().split("\t") for row in page.locator("#sweep-table tr").all()]
    decades = {name: float(arrived.split()[0]) for name, arrived, _ in rows}
    assert decades["ActiveAdam, robust rule"] == 6.0
    assert decades["Adam"] < decades["ActiveAdam, paper's rule"] < 6.0


def test_inside_says_what_each_sign_did_to_its_gain(open_page):
    page = open_page("#f=quadratic&lr=0.15&steps=30&race=sgdp&look=sgdp&t=3")
    told = page.locator("#inside").inner_text()
    assert "x: same sign, the steps were too short. Gain 1.1 + 0.1 = 1.2" in told
    assert "y: the sign turned, the steps were too long. Gain 0.9 \u00d7 0.9 = 0.81" in told
