"""The report in a real browser: nothing is fetched, nothing complains; it sorts, fits and prints."""

import base64
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import asked, chromium, needs_chromium, prefer, resize, until, wait
from conftest import tiny_model
from PIL import Image
from slides import texture, write_slide

from wsi_twostage.mask import MaskPyramid
from wsi_twostage.pipeline import segment
from wsi_twostage.report import write_report
from wsi_twostage.selection import Fraction
from wsi_twostage.settings import Settings

pytestmark = needs_chromium

SLIDES = 7
HOSTILE = "\"><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">.svs"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium(requests=True) as driver:
        yield driver


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A report of one slide, and one of a batch: one is odd, one not whole, and one named by an enemy."""
    folder = tmp_path_factory.mktemp("pages")
    slide = write_slide(folder / "case-0.tiff", [texture(500, 700)])
    model = tiny_model(folder / "tiny.safetensors")
    settings = Settings(tissue="none", workers=2, audit=8)
    first = folder / "case-0.seg.ome.zarr"
    segment(slide, first, bundle=model, rule=Fraction(0.25), settings=settings)
    results = [first]
    for number in range(1, SLIDES):
        results.append(folder / f"case-{number}.seg.ome.zarr")
        shutil.copytree(first, results[-1])
        store = MaskPyramid.open(results[-1])
        named = HOSTILE if number == 2 else f"case-{number}.tiff"
        store.note(slide={**store.manifest["slide"], "path": f"/gone/{named}"}, complete=number != 3)
        factor = np.float32(3 if number == 5 else 1 + number / 100)
        store.write_tile_column("uncertainty", store.tiles()["uncertainty"] * factor)
    return {
        "one": write_report([first], folder / "one.html"),
        "batch": write_report(results, folder / "batch.html"),
    }


def visit(browser: Any, page: Path, *, width: int = 1200, dark: bool = False) -> list[str]:
    """Load a page; gives the addresses that were asked for."""
    browser.get("about:blank")
    resize(browser, width, 900, phone=width < 600)
    prefer(browser, "dark" if dark else "light")
    browser.get_log("browser")
    asked(browser)
    browser.get(page.as_uri())
    return asked(browser)


@pytest.mark.parametrize("name", ["one", "batch"])
def test_nothing_is_fetched_and_nothing_complains(browser: Any, pages: dict[str, Path], name: str) -> None:
    addresses = visit(browser, pages[name])
    assert [url for url in addresses if not url.startswith("data:")] == [pages[name].as_uri()]
    assert browser.get_log("browser") == []
    assert browser.title.startswith("Report of")  # no name of a slide was run as a script


def test_even_what_would_slip_in_is_neither_fetched_nor_run(
    browser: Any, pages: dict[str, Path], tmp_path: Path
) -> None:
    slipped = "<img src='http://127.0.0.1:9/x.png'><script>document.title = 'taken'</script></main>"
    page = tmp_path / "page.html"
    page.write_text(pages["one"].read_text(encoding="utf-8").replace("</main>", slipped), encoding="utf-8")
    visit(browser, page)
    complaints: list[str] = []

    def both() -> bool:
        complaints.extend(entry["message"] for entry in browser.get_log("browser"))
        return len(complaints) >= 2

    until(both, "what the browser says against two forbidden things")
    assert len(complaints) == 2
    assert all("Content Security Policy" in message for message in complaints)
    assert browser.title.startswith("Report of")


def test_pictures_are_drawn(browser: Any, pages: dict[str, Path]) -> None:
    visit(browser, pages["one"])
    for figure in browser.find_elements("css selector", ".pictures svg"):
        shot = np.asarray(Image.open(io.BytesIO(figure.screenshot_as_png)).convert("RGB"), np.float32)
        assert shot.std() > 15, figure.get_attribute("aria-label")


def background(browser: Any) -> str:
    return str(browser.execute_script("return getComputedStyle(document.documentElement).backgroundColor"))


def contrast(browser: Any) -> float:
    """Of text on the page, as WCAG 2 computes it: 1 to 21."""
    script = "const s = getComputedStyle(document.documentElement); return [s.color, s.backgroundColor]"
    light = []
    for colour in browser.execute_script(script):
        part = np.array([float(v) for v in colour[colour.index("(") + 1 : -1].split(",")[:3]]) / 255
        linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
        light.append(float(linear @ [0.2126, 0.7152, 0.0722]))
    return (max(light) + 0.05) / (min(light) + 0.05)


def test_light_and_dark_differ_and_both_can_be_read(browser: Any, pages: dict[str, Path]) -> None:
    seen = []
    for dark in (False, True):
        visit(browser, pages["one"], dark=dark)
        seen.append(background(browser))
        assert contrast(browser) > 12
    assert seen[0] != seen[1]


@pytest.mark.parametrize("name", ["one", "batch"])
def test_it_fits_a_phone(browser: Any, pages: dict[str, Path], name: str) -> None:
    visit(browser, pages[name], width=390)
    if name == "batch":
        browser.execute_script("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    wide = browser.execute_script("return document.documentElement.scrollWidth")
    assert wide <= 390
    pairs = browser.execute_script(
        "return [...document.querySelectorAll('.pairs')]"
        ".map((table) => table.scrollWidth - table.parentElement.clientWidth)"
    )
    assert max(pairs) <= 0  # no cell is cut off


def column(browser: Any, number: int) -> list[str]:
    script = (
        "return [...document.querySelectorAll('.sortable tbody tr')]"
        ".map((row) => row.cells[arguments[0]].dataset.value)"
    )
    return list(browser.execute_script(script, number))


def press(browser: Any, number: int, key: str) -> str:
    """Press a key on a heading; gives what it then says of its order."""
    heading = browser.find_elements("css selector", ".sortable thead th")[number]
    heading.find_element("css selector", "button").send_keys(key)
    return str(heading.get_attribute("aria-sort"))


def test_the_table_sorts_by_keyboard_and_says_so(browser: Any, pages: dict[str, Path]) -> None:
    visit(browser, pages["batch"])
    names = column(browser, 0)
    assert names[0] == "case-3.tiff"  # not whole
    assert names[1] == "case-5.tiff"  # far from the others
    titles = [one.text for one in browser.find_elements("css selector", ".sortable thead th")]
    at = next(i for i, title in enumerate(titles) if title.startswith("mean"))
    for order, sign in (("descending", -1), ("ascending", 1)):
        assert press(browser, at, "\ue007") == order  # Enter
        values = [float(value) for value in column(browser, at)]
        assert values == sorted(values, key=lambda value: sign * value)
    assert press(browser, 0, " ") == "ascending"
    assert sorted(column(browser, 0)) == sorted(names)
    assert len(browser.find_elements("css selector", "[aria-sort]")) == 1


def test_a_row_opens_its_slide(browser: Any, pages: dict[str, Path]) -> None:
    visit(browser, pages["batch"])
    shown = "document.querySelectorAll('details.slide[open]').length"
    assert browser.execute_script(f"return {shown}") == 0
    browser.find_element("css selector", ".sortable tbody a").click()
    wait(browser, f"{shown} === 1")  # a new address is heard of a moment later
    opened = browser.find_element("css selector", "details.slide[open] .keys")
    assert opened.is_displayed()
    browser.find_element("css selector", "button[data-open=all]").click()
    wait(browser, f"{shown} === {SLIDES}")


def test_a_layer_can_be_taken_away(browser: Any, pages: dict[str, Path]) -> None:
    visit(browser, pages["one"])
    hidden = "getComputedStyle(document.querySelector('.pictures image.mask')).display === 'none'"
    assert not browser.execute_script(f"return {hidden}")
    browser.find_element("css selector", ".pictures .show-mask").click()
    wait(browser, hidden)


@pytest.mark.parametrize("name", ["one", "batch"])
def test_it_prints(browser: Any, pages: dict[str, Path], name: str) -> None:
    visit(browser, pages[name], dark=True)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert background(browser) == "rgb(255, 255, 255)"
    hidden = "return getComputedStyle(document.querySelector('.legend input')).display"
    assert browser.execute_script(hidden) == "none"
    pdf = browser.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True, "printBackground": True})
    written = base64.b64decode(pdf["data"])
    assert written.startswith(b"%PDF")
    assert 1 <= written.count(b"/Type /Page\n") <= 5


def test_every_picture_says_what_it_shows(browser: Any, pages: dict[str, Path]) -> None:
    visit(browser, pages["one"])
    mute = "return document.querySelectorAll('svg:not([aria-label]), svg:not([role=img])').length"
    assert browser.execute_script(mute) == 0
