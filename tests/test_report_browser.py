"""The page in a real browser: no errors, no sideways scrolling, and its few moving parts move."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from report_browser import Browser, find_chromium
from report_run import make_run, open_drawn
from vislang.report import write_report

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    binary = find_chromium()
    if binary is None:
        pytest.skip("needs Chromium: install the package chromium")
    with Browser(binary) as browser:
        yield browser


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    a, b = make_run(folder / ("clip-" + "x" * 90)), make_run(folder / "b", prompts="other")
    path = a / "scores/000000400/retrieval.json"
    score = json.loads(path.read_text())
    score["cosine"]["texts"][0] = "averyveryverylongword" * 20
    score["tables"] = {"wide": {"columns": [f"column {i}" for i in range(40)], "rows": [[1] * 40]}}
    path.write_text(json.dumps(score))
    return {
        "one": write_report([a], folder / "one.html", open_source=open_drawn),
        "two": write_report([a, b], folder / "two.html", open_source=open_drawn),
    }


@pytest.mark.parametrize("name", ["one", "two"])
@pytest.mark.parametrize("width", [360, 390, 768, 1280])
def test_no_errors_no_requests_and_no_sideways_scrolling(browser, pages, name, width):
    browser.problems.clear()
    for dark in (False, True):
        browser.show(pages[name], width, dark=dark)
        browser.run("document.querySelectorAll('details').forEach(node => node.open = true)")
        assert browser.run("document.documentElement.scrollWidth") <= width
        assert browser.run("innerWidth") == width  # a phone would zoom out from an overflow
    assert browser.problems == []


def test_the_theme_follows_the_system_and_can_be_chosen(browser, pages):
    shade = "getComputedStyle(document.body).backgroundColor"
    browser.show(pages["one"], 1280)
    light = browser.run(shade)
    browser.show(pages["one"], 1280, dark=True)
    dark = browser.run(shade)
    assert light != dark
    button = "document.querySelector('button.theme')"
    assert browser.run(f"{button}.click(), {button}.textContent") == "Theme: light"
    assert browser.run(shade) == light
    browser.show(pages["one"], 1280, dark=True)
    assert browser.run(shade) == light  # remembered
    assert browser.run(f"{button}.click(), {button}.click(), {button}.textContent") == "Theme: auto"
    assert browser.run(shade) == dark


def test_arrow_keys_read_the_curve_and_the_map(browser, pages):
    browser.show(pages["one"], 1280)
    browser.run("document.querySelector('svg.chart').focus()")
    browser.call("Input.dispatchKeyEvent", type="keyDown", key="Home")
    output = "document.querySelector('figure.curve output').textContent"
    assert browser.run(output).endswith("at step 10")
    browser.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowRight")
    assert browser.run(output).endswith("at step 20")
    browser.run("document.querySelector('svg.map').focus()")
    browser.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowLeft")
    assert browser.run("document.querySelector('.card .id').textContent").startswith("digit-")
    drawn = (
        "document.querySelector('.card canvas').getContext('2d').getImageData(48,48,1,1).data[3]"
    )
    assert browser.run(drawn) == 255  # the picture is there, from the atlas


def test_the_pointer_reads_the_curve(browser, pages):
    browser.show(pages["one"], 1280)
    place = browser.run(
        "(() => { const chart = document.querySelector('svg.chart');"
        " chart.scrollIntoView({block: 'center', behavior: 'instant'});"
        " const box = chart.getBoundingClientRect();"
        " return [box.left + box.width * (44 + 304 / 2) / 360, box.top + box.height / 2]; })()"
    )
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=place[0], y=place[1])
    said = browser.run("document.querySelector('figure.curve output').textContent")
    assert int(said.rsplit(" ", 1)[1]) in (200, 210)  # the middle of 10 ... 400


def test_tables_sort_and_leave_as_csv(browser, pages):
    browser.show(pages["one"], 1280)
    table = (
        "[...document.querySelectorAll('table.data')]"
        ".find(one => one.caption.textContent.startsWith('per class'))"
    )
    browser.run(f"{table}.querySelectorAll('button.sort')[2].click()")
    cells = browser.run(f"[...{table}.tBodies[0].rows].map(row => +row.cells[2].dataset.v)")
    assert cells == sorted(cells) and len(cells) == 10
    csv = browser.run(
        "(async () => { const make = URL.createObjectURL; let blob;"
        " URL.createObjectURL = (b) => { blob = b; return make(b); };"
        f" {table}.querySelector('.csv').click(); URL.createObjectURL = make;"
        " return await blob.text(); })()"
    )
    lines = csv.strip("\ufeff\r\n").split("\r\n")
    assert lines[0] == "class,n,recall" and len(lines) == 11


def test_a_link_into_a_folded_run_opens_it(browser, pages):
    browser.show(pages["two"], 1280)
    assert browser.run("document.getElementById('run-2').open") is False
    browser.run("location.hash = '#run-2-curves'")
    for _ in range(50):
        if browser.run("document.getElementById('run-2').open"):
            break
        time.sleep(0.05)
    assert browser.run("document.getElementById('run-2').open") is True


def test_on_paper_everything_is_unfolded_and_nothing_is_left_to_press(browser, pages):
    browser.show(pages["two"], 1280, dark=True)
    browser.call("Emulation.setEmulatedMedia", media="print")
    pressed = "[...document.querySelectorAll('nav, .theme, .csv')]"
    assert browser.run(f"{pressed}.every(node => getComputedStyle(node).display === 'none')")
    assert browser.run("getComputedStyle(document.documentElement).colorScheme") == "light"
    browser.call("Emulation.setEmulatedMedia", media="")
    browser.run("dispatchEvent(new Event('beforeprint'))")
    assert browser.run("document.querySelectorAll('details:not([open])').length") == 0
    browser.run("dispatchEvent(new Event('afterprint'))")
    assert browser.run("document.querySelectorAll('details[open]').length") == 0
