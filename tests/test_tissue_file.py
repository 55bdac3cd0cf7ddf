"""Tissue as a file says it."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wsi_twostage.errors import ConfigError
from wsi_twostage.tissue_file import read_tissue

FULL, WANTED = (800, 1200), (40, 60)  # 20 px of level 0 per pixel
SQUARE = [[200, 100], [600, 100], [600, 500], [200, 500], [200, 100]]  # (x, y)
HOLE = [[300, 200], [500, 200], [500, 400], [300, 400], [300, 200]]


def write(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path


def feature(*rings: Any, kind: str = "Polygon") -> dict[str, Any]:
    return {"type": "Feature", "properties": {}, "geometry": {"type": kind, "coordinates": list(rings)}}


@pytest.mark.parametrize("factor", [1, 3])
def test_a_mask_of_any_size_is_spread_over_the_slide(tmp_path: Path, factor: int) -> None:
    mask = np.zeros((40 * factor, 60 * factor), np.uint8)
    mask[10 * factor, 20 * factor : 22 * factor] = 1  # 1 is not black
    Image.fromarray(mask).save(tmp_path / "mask.png")
    expected = np.zeros(WANTED, np.bool_)
    expected[10, 20:22] = True
    np.testing.assert_array_equal(
        read_tissue(tmp_path / "mask.png", full=FULL, wanted=WANTED, downsample=20), expected
    )


def test_any_colour_of_a_mask_is_tissue(tmp_path: Path) -> None:
    mask = np.zeros((40, 60, 3), np.uint8)
    mask[5, 7, 2] = 3
    Image.fromarray(mask).save(tmp_path / "mask.png")
    assert read_tissue(tmp_path / "mask.png", full=FULL, wanted=WANTED, downsample=20).sum() == 1


def test_faint_and_transparent_masks(tmp_path: Path) -> None:
    faint = np.zeros((40, 60), np.float32)
    faint[3, 4] = 0.01
    Image.fromarray(faint).save(tmp_path / "faint.tif")
    assert read_tissue(tmp_path / "faint.tif", full=FULL, wanted=WANTED, downsample=20).sum() == 1
    clear = np.full((40, 60, 4), 255, np.uint8)
    clear[..., 3] = 0
    clear[3, 4, 3] = 9
    Image.fromarray(clear).save(tmp_path / "clear.png")
    assert read_tissue(tmp_path / "clear.png", full=FULL, wanted=WANTED, downsample=20).sum() == 1


def test_polygons_that_reach_outside_are_cut(tmp_path: Path) -> None:
    wide = [[-900, -900], [100, -900], [100, 60], [-900, 60], [-900, -900]]
    away = [[5000, 5000], [6000, 5000], [6000, 6000], [5000, 5000]]
    path = write(tmp_path / "a.geojson", [feature(wide), feature(away)])
    tissue = read_tissue(path, full=FULL, wanted=WANTED, downsample=20)
    assert tissue[:3, :5].all()
    assert tissue.sum() == 4 * 6


@pytest.mark.parametrize("wrap", ["collection", "list", "feature", "geometry", "multi", "geometries"])
def test_polygons_are_drawn_without_their_holes(tmp_path: Path, wrap: str) -> None:
    one = feature(SQUARE, HOLE)
    value: Any = {
        "collection": {"type": "FeatureCollection", "features": [one, feature([0, 0], kind="Point")]},
        "list": [one],
        "feature": one,
        "geometry": one["geometry"],
        "multi": feature([SQUARE, HOLE], kind="MultiPolygon"),
        "geometries": {"type": "GeometryCollection", "geometries": [one["geometry"]]},
    }[wrap]
    tissue = read_tissue(write(tmp_path / "a.geojson", value), full=FULL, wanted=WANTED, downsample=20)
    assert tissue[6:24, 11:14].all()
    assert tissue[6:9, 11:29].all()
    assert not tissue[11:19, 16:24].any()
    assert tissue.sum() == 21 * 21 - 9 * 9  # with what the outlines touch


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.geojson", "{", "not GeoJSON"),
        ("a.geojson", "[]", "no Polygon"),
        ("a.geojson", '{"type": "Polygon", "coordinates": [[["x", 1]]]}', "not GeoJSON"),
        ("a.geojson", '{"kind": 3}', "not GeoJSON"),
        ("a.json", "3", "not GeoJSON"),
        ("a.json", '{"type": "Polygon", "coordinates": [[[NaN, 1], [2, 3], [4, 5]]]}', "not GeoJSON"),
        ("a.json", '{"type": "Polygon", "coordinates": [[[1e10, 1], [2, 3], [4, 5]]]}', "far from the slide"),
        ("a.json", f'{{"type": "Polygon", "coordinates": [[[1{"0" * 400}, 1], [2, 3]]]}}', "not GeoJSON"),
        ("a.json", "[" * 100_000 + "]" * 100_000, "not GeoJSON"),
        ("a.png", "text", "neither a mask image"),
    ],
)
def test_what_is_no_mask_is_refused_in_a_line(tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=said) as error:
        read_tissue(tmp_path / name, full=FULL, wanted=WANTED, downsample=20)
    assert "\n" not in str(error.value)


def test_an_empty_polygon_is_passed_over(tmp_path: Path) -> None:
    ring = [[0, 0], [40, 0], [40, 40], [0, 40], [0, 0]]
    shapes = [{"type": "Polygon", "coordinates": part} for part in ([], [ring])]
    (tmp_path / "a.geojson").write_text(json.dumps({"type": "GeometryCollection", "geometries": shapes}))
    assert read_tissue(tmp_path / "a.geojson", full=(80, 80), wanted=(8, 8), downsample=10)[:4, :4].all()


def test_a_byte_order_mark_and_other_line_ends_are_passed_over(tmp_path: Path) -> None:
    text = json.dumps(feature(SQUARE), indent=1).replace("\n", "\r\n")
    (tmp_path / "a.geojson").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_tissue(tmp_path / "a.geojson", full=FULL, wanted=WANTED, downsample=20).sum() == 21 * 21


@pytest.mark.parametrize("name", ["a.geojson", "a.png"])
def test_a_pipe_is_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(ConfigError, match=r"can be read \(not a file\)"):
        read_tissue(tmp_path / name, full=FULL, wanted=WANTED, downsample=20)


def test_a_mask_of_another_shape_is_refused(tmp_path: Path) -> None:
    Image.new("L", (60, 60)).save(tmp_path / "mask.png")
    with pytest.raises(ConfigError, match="60 x 60 px does not show a slide of 800 x 1200"):
        read_tissue(tmp_path / "mask.png", full=FULL, wanted=WANTED, downsample=20)


@pytest.mark.parametrize("name", ["a.geojson", "a.png"])
def test_nothing_is_moved_where_the_slide_is_no_multiple_of_the_grid(tmp_path: Path, name: str) -> None:
    # 3 px of 32 px of level 0, and 31 px more; what is drawn lies in the last but one
    if name == "a.geojson":
        write(tmp_path / name, feature([[65, 1], [95, 1], [95, 31], [65, 31], [65, 1]]))
    else:
        mask = np.zeros((127, 127), np.uint8)
        mask[1:31, 65:95] = 255
        Image.fromarray(mask).save(tmp_path / name)
    tissue = read_tissue(tmp_path / name, full=(127, 127), wanted=(4, 4), downsample=32)
    assert np.argwhere(tissue).tolist() == [[0, 2]]


def test_polygons_beside_the_slide_are_refused(tmp_path: Path) -> None:
    away = [[5000, 5000], [6000, 5000], [6000, 6000], [5000, 5000]]
    path = write(tmp_path / "a.geojson", [feature(away)])
    with pytest.raises(ConfigError, match=r"none of its polygons lies on the slide.* there are 1200 x 800"):
        read_tissue(path, full=FULL, wanted=WANTED, downsample=20)


def test_a_black_mask_is_a_slide_without_tissue(tmp_path: Path) -> None:
    Image.new("L", (60, 40)).save(tmp_path / "mask.png")
    assert not read_tissue(tmp_path / "mask.png", full=FULL, wanted=WANTED, downsample=20).any()


@pytest.mark.parametrize(
    "odd",
    [
        {"type": "Feature", "properties": {}},
        feature([[]], kind="MultiPolygon"),
        feature([]),
    ],
    ids=["no geometry", "an empty polygon of several", "an empty outline"],
)
def test_one_odd_member_does_not_cost_the_others(tmp_path: Path, odd: dict[str, Any]) -> None:
    path = write(tmp_path / "a.geojson", [odd, feature(SQUARE, [])])
    assert read_tissue(path, full=FULL, wanted=WANTED, downsample=20).sum() == 21 * 21
