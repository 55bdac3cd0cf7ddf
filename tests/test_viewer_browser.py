"""The viewer in a browser, from the first picture to a refined one."""

import base64
import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import chromium, needs_chromium, resize, until, wait, wait_for_picture
from conftest import small_bundle, tiny_model
from numpy.typing import NDArray
from PIL import Image
from slides import pyramid, texture, write_slide

from wsi_twostage.mask import MaskPyramid, Source
from wsi_twostage.models.bundle import ModelBundle
from wsi_twostage.pipeline import segment
from wsi_twostage.selection import Fraction
from wsi_twostage.settings import Settings
from wsi_twostage.tiles import Box
from wsi_twostage.viewer import Viewer, open_viewer

pytestmark = [
    needs_chromium,
    # Threads of the browser's driver end when they like.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as driver:
        yield driver


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> MaskPyramid:
    """Of a slide of 1400 x 2100 px; a tenth refined."""
    folder = tmp_path_factory.mktemp("made")
    return make(folder, small_bundle(), Fraction(0.1))


@pytest.fixture(scope="module")
def viewer(store: MaskPyramid) -> Iterator[Viewer]:
    with running(store) as viewer:
        yield viewer


@pytest.fixture
def refinable(tmp_path: Path) -> MaskPyramid:
    """Nothing refined, and a model in a file, so that it can be."""
    return make(tmp_path, tiny_model(tmp_path / "tiny.safetensors"), Fraction(0.0))


@pytest.fixture
def refining(refinable: MaskPyramid) -> Iterator[Viewer]:
    with running(refinable) as viewer:
        yield viewer


def make(folder: Path, bundle: ModelBundle | Path, rule: Fraction) -> MaskPyramid:
    slide = write_slide(folder / "slide.tiff", pyramid(texture(1400, 2100), 2))
    settings = Settings(tissue="none", workers=2)
    return segment(slide, folder / "o.zarr", bundle=bundle, rule=rule, settings=settings).store


@contextmanager
def running(store: MaskPyramid) -> Iterator[Viewer]:
    viewer = open_viewer(store.path)
    viewer.start()
    try:
        yield viewer
    finally:
        viewer.close()


def open_at(browser: Any, viewer: Viewer, place: str = "") -> None:
    """The page, with all tiles of its first view."""
    browser.get("about:blank")  # a new # alone loads nothing
    browser.get(viewer.url + place)
    wait_for_picture(browser)


def press(browser: Any, *keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser).send_keys(*keys).perform()


def seen(browser: Any) -> NDArray[np.int16]:
    """The slide with its layers, (H, W, 4)."""
    data = browser.execute_script("return world.osd.drawer.canvas.toDataURL('image/png')")
    image = Image.open(io.BytesIO(base64.b64decode(data.split(",", 1)[1])))
    return np.asarray(image.convert("RGBA")).astype(np.int16)


def wait_for_change(browser: Any, before: NDArray[np.int16]) -> None:
    """Until the picture has become another than it was."""

    def differs() -> bool:
        wait_for_picture(browser)
        return bool(np.abs(seen(browser) - before).max() > 8)

    until(differs, "another picture")


def complaints(browser: Any) -> list[str]:
    """What the browser has to say against the page."""
    return [line["message"] for line in browser.get_log("browser") if line["level"] == "SEVERE"]


def text(browser: Any, name: str) -> str:
    """Of an element, also while it fades in or out."""
    return str(browser.find_element("id", name).get_attribute("textContent"))


def test_the_slide_opens_whole_and_from_this_machine_only(browser: Any, viewer: Viewer) -> None:
    open_at(browser, viewer)
    assert text(browser, "name") == "slide.tiff"
    assert "2,100 × 1,400 px at 0.5 µm/px" in text(browser, "facts")
    box = browser.execute_script("return world.box")
    assert box == {"top": 0, "left": 0, "height": 1400, "width": 2100}
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert len(loaded) > 10
    assert all(name.startswith(viewer.url) for name in loaded)
    assert complaints(browser) == []


def test_the_picture_is_that_of_the_slide(browser: Any, viewer: Viewer) -> None:
    open_at(browser, viewer, "#row=700&col=1050&mpp=0.5&layers=slide:100")
    picture, truth = seen(browser)[..., :3], texture(1400, 2100).astype(np.int16)
    row, col = picture.shape[0] // 2, picture.shape[1] // 2

    def difference(shift: int) -> float:
        part = picture[row - 100 : row + 100, col - 100 + shift : col + 100 + shift]
        return float(np.abs(part - truth[600:800, 950:1150]).mean())

    assert difference(0) < min(difference(-3), difference(3)) / 1.3


def test_keys_zoom_and_move(browser: Any, viewer: Viewer) -> None:
    from selenium.webdriver.common.keys import Keys

    open_at(browser, viewer)
    whole = browser.execute_script("return world.mpp(false)")
    press(browser, "+", "+")
    closer = browser.execute_script("return world.mpp(false)")
    assert closer < whole / 2
    at = browser.execute_script("return world.centre.col")
    press(browser, Keys.ARROW_RIGHT)
    wait(browser, f"world.centre.col > {at} + 10")
    press(browser, Keys.HOME)
    wait(browser, f"Math.abs(world.mpp(false) / {whole} - 1) < 0.01")


def test_the_scale_bar_has_the_length_that_it_says(browser: Any, viewer: Viewer) -> None:
    open_at(browser, viewer, "#row=700&col=1050&mpp=0.5")
    said, unit = text(browser, "length").split()
    px = browser.execute_script("return document.getElementById('bar').getBoundingClientRect().width")
    assert unit == "µm"
    assert float(said) == pytest.approx(0.5 * px, rel=0.03)


def test_keys_and_boxes_show_and_hide_layers(browser: Any, viewer: Viewer) -> None:
    open_at(browser, viewer)
    for key in "1234":
        before = seen(browser)
        press(browser, key)
        wait_for_change(browser, before)
    before, box = seen(browser), browser.find_element("id", "layer-source")
    assert box.is_selected()
    box.click()
    wait_for_change(browser, before)
    press(browser, "5")
    drawn = "document.getElementById('marks').getContext('2d').getImageData(0, 0, 900, 700).data.some(v => v)"
    assert wait(browser, drawn)


def test_opacity_is_that_of_the_slider(browser: Any, viewer: Viewer) -> None:
    open_at(browser, viewer, "#layers=slide:100,mask:100")
    before = seen(browser)
    browser.execute_script(
        "const slider = document.getElementById('opacity-mask');"
        "slider.value = 20; slider.dispatchEvent(new Event('input'))"
    )
    wait_for_change(browser, before)
    assert browser.execute_script("return world.images.mask.getOpacity()") == pytest.approx(0.2)


def test_a_click_on_a_tile_shows_its_row(browser: Any, viewer: Viewer, store: MaskPyramid) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    open_at(browser, viewer)
    pixel = browser.execute_script("return world.toScreen({ row: 5.5 * 128, col: 9.5 * 128 })")
    stage = browser.find_element("id", "stage")
    right, down = round(pixel["x"] - stage.size["width"] / 2), round(pixel["y"] - stage.size["height"] / 2)
    ActionChains(browser).move_to_element_with_offset(stage, right, down).click().perform()
    wait(browser, "document.getElementById('row').children.length")
    assert text(browser, "tile-title").lower() == "tile, row 5, column 9"
    assert "Model 1" in text(browser, "row")
    table = store.tiles()
    mine = (table["row"] == 5) & (table["col"] == 9)
    assert f"{table['uncertainty'][mine][0]:.4f}" in text(browser, "row")


def test_a_slow_click_chooses_a_tile_too(browser: Any, viewer: Viewer) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    open_at(browser, viewer)
    stage = browser.find_element("id", "stage")
    ActionChains(browser).click_and_hold(stage).pause(0.5).release().perform()
    wait(browser, "document.getElementById('row').children.length")


def test_a_link_restores_the_view(browser: Any, viewer: Viewer) -> None:
    open_at(browser, viewer, "#row=300&col=500&mpp=0.7&layers=slide:80,source:35&tile=2,3")
    wait(browser, "document.getElementById('row').children.length")
    press(browser, "3")
    link = browser.current_url
    browser.get("about:blank")
    browser.get(link)
    wait_for_picture(browser)
    place = browser.execute_script("return { ...world.centre, mpp: world.mpp(false) }")
    assert place == pytest.approx({"row": 300, "col": 500, "mpp": 0.7}, rel=0.01)
    shown = browser.execute_script("return Object.keys(world.layers).filter(name => world.layers[name].on)")
    assert shown == ["slide", "uncertainty", "source"]
    wait(browser, "document.getElementById('row').children.length")
    assert text(browser, "tile-title").lower() == "tile, row 2, column 3"


@pytest.mark.parametrize(
    "place", ["#row=x&col=&mpp=-1&layers=nothing:9,__proto__:1&tile=9999,-1", "#%%%", "#" + "a" * 3000]
)
def test_a_link_that_is_wrong_does_no_harm(browser: Any, viewer: Viewer, place: str) -> None:
    open_at(browser, viewer, place)
    assert text(browser, "name") == "slide.tiff"
    assert complaints(browser) == []


def test_refine_here_changes_the_picture(browser: Any, refining: Viewer, refinable: MaskPyramid) -> None:
    open_at(browser, refining, "#row=320&col=320&mpp=0.5&layers=slide:100,source:100&tile=2,2")
    shown = browser.execute_script("return world.box")
    count = refining.scene.shown(Box(**shown)).left
    wait(browser, f"document.getElementById('shown').textContent === '{count} tiles'")
    before = seen(browser)
    press(browser, "r")
    wait(browser, "document.getElementById('said').textContent.includes('refined in')")
    assert f"{count} tiles refined" in text(browser, "said")
    wait(browser, "document.getElementById('row').textContent.includes('Model 2')")
    assert int((refinable.read_source() == Source.MODEL_2).sum()) == count
    wait_for_change(browser, before)
    wait(browser, "document.getElementById('refine').disabled")
    wait(browser, f"document.getElementById('facts').textContent.includes('{count} refined')")
    assert complaints(browser) == []


def test_what_another_run_refines_is_shown(browser: Any, refining: Viewer, refinable: MaskPyramid) -> None:
    from wsi_twostage.further import refine

    open_at(browser, refining, "#layers=slide:100,source:100")
    before = seen(browser)
    refine(refinable.path, Fraction(0.2), settings=Settings(workers=2))
    wait_for_change(browser, before)


def test_on_a_phone_the_panel_makes_room(browser: Any, viewer: Viewer) -> None:
    resize(browser, 390, 844, phone=True)
    try:
        open_at(browser, viewer)
        assert not browser.find_element("id", "panel").is_displayed()
        buttons = browser.find_elements("css selector", "#tools button, #open")
        assert all(min(button.size.values()) >= 44 for button in buttons)
        browser.find_element("id", "open").click()
        assert browser.find_element("id", "panel").is_displayed()
        assert browser.execute_script("return document.documentElement.scrollWidth") == 390
    finally:
        resize(browser, 1280, 800)


def test_fingers_choose_and_zoom(browser: Any, viewer: Viewer) -> None:
    resize(browser, 390, 844, phone=True)
    try:
        open_at(browser, viewer)
        before = browser.execute_script("return world.mpp(false)")
        at = {"x": 195, "y": 400}
        browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [at]})
        browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        assert "tile, row" in wait(browser, "document.getElementById('said').textContent").lower()
        pinch = {**at, "scaleFactor": 2.5, "gestureSourceType": "touch"}
        browser.execute_cdp_cmd("Input.synthesizePinchGesture", pinch)
        wait(browser, f"world.mpp(false) < {before} / 1.5")
    finally:
        resize(browser, 1280, 800)


def test_every_control_has_a_name(browser: Any, viewer: Viewer) -> None:
    open_at(browser, viewer)
    for control in browser.find_elements("css selector", "button, input"):
        if control.is_displayed():
            assert control.accessible_name, control.get_attribute("outerHTML")


def test_when_the_result_is_gone_the_page_says_so(browser: Any, store: MaskPyramid, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(store.path, tmp_path / "o.zarr"))
    with running(MaskPyramid.open(copy)) as viewer:
        open_at(browser, viewer)
        shutil.rmtree(copy)
        wait(browser, "document.getElementById('said').textContent.includes('does not exist')")


def test_when_the_server_has_ended_the_page_says_so(browser: Any, store: MaskPyramid) -> None:
    with running(store) as viewer:
        open_at(browser, viewer)
    wait(browser, "document.getElementById('said').textContent.includes('has ended')")
