"""What Jupyter shows of a result, its plots, and the notebook among the examples."""

import ast
import base64
import io
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, SVS, small_bundle
from PIL import Image
from slides import pyramid, texture, write_slide

from wsi_twostage import ConfigError, Fraction, Result, Settings, segment, verify
from wsi_twostage.notebook import LAYERS, drawn, plot
from wsi_twostage.pictures import outline
from wsi_twostage.tiles import Box

NOTEBOOK = ROOT / "examples" / "segment_look_refine.ipynb"


@pytest.fixture(scope="module", autouse=True)
def _without_a_screen() -> None:
    pytest.importorskip("matplotlib").use("Agg")


@pytest.fixture(autouse=True)
def _figures_are_closed() -> Iterator[None]:
    yield
    from matplotlib import pyplot

    pyplot.close("all")


def made(folder: Path, **settings: Any) -> Result:
    """Of a slide of 700 x 1100 px, a fifth refined."""
    slide = write_slide(folder / "slide.tiff", pyramid(texture(700, 1100), 2))
    settings = {"tissue": "none", "workers": 1} | settings
    return segment(
        slide, folder / "o.zarr", bundle=small_bundle(), rule=Fraction(0.2), settings=Settings(**settings)
    )


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return made(tmp_path_factory.mktemp("made"))


def test_the_picture_is_the_slide_with_the_outlines_of_the_mask(result: Result) -> None:
    picture = drawn(result.store, 0)
    labels = result.store.read(Box(0, 0, 700, 1100))
    edge = outline(labels)
    assert edge.any()
    assert (picture[edge] == result.store.spec.colours[0]).all()
    assert np.array_equal(picture[labels == 0], texture(700, 1100)[labels == 0])


@pytest.mark.parametrize("mpp", [0, -1, float("inf"), float("nan")])
def test_a_scale_that_makes_no_sense_is_one_line(result: Result, mpp: float) -> None:
    with pytest.raises(ConfigError, match="it must be above 0, and finite"):
        result.mask(mpp=mpp)


def test_jupyter_gets_a_small_png(result: Result) -> None:
    picture = Image.open(io.BytesIO(result._repr_png_()))
    assert picture.format == "PNG"
    assert picture.size == (275, 175)


def test_jupyter_gets_html_with_a_picture_and_facts(result: Result) -> None:
    page = result._repr_html_()
    (data,) = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (275, 175)
    for fact in ("slide.tiff", "1,100 x 700 px at 0.5 um/px", "11 tiles", "budget 20%", "class 1"):
        assert fact in page, page.replace(data, "")
    assert str(result.store.path.parent) not in page


def test_names_in_the_html_are_text(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "<b>&.tiff", pyramid(texture(200, 300), 1))
    settings = Settings(tissue="none", workers=1)
    result = segment(slide, tmp_path / "o.zarr", bundle=small_bundle(), rule=Fraction(0.0), settings=settings)
    assert "&lt;b&gt;&amp;.tiff" in result._repr_html_()
    assert "<b>" not in result._repr_html_()


@pytest.mark.parametrize("fate", ["gone", "another", "no slide"])
def test_without_its_slide_a_result_is_shown_over_the_overview(tmp_path: Path, fate: str) -> None:
    result = made(tmp_path)
    before = drawn(result.store, 1).astype(np.int16)
    slide = tmp_path / "slide.tiff"
    slide.unlink()
    if fate == "another":
        write_slide(slide, pyramid(texture(700, 1100, seed=1), 2))
    elif fate == "no slide":
        slide.write_text("no slide")
    after = drawn(result.store, 1).astype(np.int16)
    assert before.shape == after.shape
    assert 0 < np.abs(after - before).mean() < 40  # blurred, but of the same slide
    assert result._repr_png_()
    assert len(result.plot()) == 3
    assert len(plot(result.store.path, "model")) == 1


def test_a_class_with_dollars_is_drawn(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "slide.tiff", [texture(200, 300)])
    bundle = small_bundle()
    dollars = replace(bundle, spec=replace(bundle.spec, classes=("PD-L1 $_$",)))
    settings = Settings(tissue="none", workers=1)
    assert segment(slide, tmp_path / "o.zarr", bundle=dollars, settings=settings)._repr_png_()


def test_axes_are_in_millimetres_of_the_slide(result: Result) -> None:
    panels = result.plot()
    assert [panel.get_title() for panel in panels] == list(LAYERS)
    for panel in panels:
        assert panel.get_xlim() == pytest.approx((0, 0.55))
        assert panel.get_ylim() == pytest.approx((0.35, 0))
        panel.figure.canvas.draw()


def test_the_tiles_of_model_2_are_where_the_table_says(result: Result) -> None:
    (panel,) = result.plot("model")
    tiles = np.asarray(panel.images[-1].get_array())
    blue = tiles[..., 2] > tiles[..., 0]
    assert np.array_equal(np.argwhere(blue), np.argwhere(result.store.read_source() == 2))
    left, right, bottom, top = panel.images[-1].get_extent()
    assert (left, top) == (0, 0)
    assert (right, bottom) == pytest.approx((9 * 128 * 0.5e-3, 6 * 128 * 0.5e-3))


def test_a_plot_goes_on_the_axes_that_are_given(result: Result) -> None:
    from matplotlib import pyplot

    figure, given = pyplot.subplots(1, 2)
    assert result.plot("slide", "uncertainty", axes=given) == list(given)
    (one,) = result.plot("slide", axes=given[0])
    assert one.figure is figure
    with pytest.raises(ConfigError, match="1 axes for 3 layers"):
        result.plot(axes=given[0])


def test_an_unknown_layer_is_refused_with_those_there_are(result: Result) -> None:
    with pytest.raises(ConfigError, match="'heat' cannot be plotted; use slide, uncertainty, model"):
        result.plot("heat")


def test_a_result_exports_itself(result: Result, tmp_path: Path) -> None:
    done = result.export(tmp_path / "cells.csv")
    assert done.objects == len(done.path.read_text().splitlines()) - 1


def test_a_result_stands_for_the_path_of_its_store(result: Result) -> None:
    assert Path(result) == Path(result.store) == result.store.path
    assert verify(result).problems == ()  # type: ignore[arg-type]


def cells() -> list[str]:
    """The notebook's code, cell by cell."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def run(cell: str, names: dict[str, Any]) -> Any:
    """Run a cell as Jupyter does: the value of the last line, if that is an expression."""
    tree = ast.parse(cell)
    last = ast.Expression(tree.body.pop().value) if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, NOTEBOOK.name, "exec"), names)
    return eval(compile(last, NOTEBOOK.name, "eval"), names) if last else None


def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    shutil.copy(SVS, tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    shown = [run(cell, names) for cell in cells()]
    results = [value for value in shown if isinstance(value, Result)]
    assert ["<img" in one._repr_html_() for one in results] == [True, True]
    assert names["second"].counts.refined > names["first"].counts.refined > 0
    assert 0.9 < names["dice"] < 1
    assert names["cells"].objects == names["table"].objects > 100
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "cells.csv", "cells.geojson", "notebook.seg.ome.zarr",
    ]  # fmt: skip


def test_the_notebook_is_kept_without_outputs() -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
