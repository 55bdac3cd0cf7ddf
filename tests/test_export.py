"""What other programs get: objects and pictures that agree with the mask."""

import csv
import errno
import gzip
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
import tifffile
from command import wsi_seg
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import distance_transform_edt
from skimage.measure import label, perimeter_crofton, regionprops
from slides import change_tile, texture, write_slide

from wsi_twostage.errors import ConfigError, StoreError, WriteError, WsiError
from wsi_twostage.events import Event, Finished, Note, Started, TilesDone
from wsi_twostage.export import Options, export, images
from wsi_twostage.export import geojson as geojson_module
from wsi_twostage.export.objects import objects
from wsi_twostage.export.split import HALO
from wsi_twostage.mask import MaskPyramid, MaskSpec, Source
from wsi_twostage.mask.store import _open_array
from wsi_twostage.slide import open_slide
from wsi_twostage.tiles import Tile

SPEC = MaskSpec(
    height=2301,
    width=2180,  # four shards, three of them clipped
    mpp=0.25,
    ratio=4,
    tile=512,
    classes=("tumour", "stroma"),
    colours=((220, 40, 40), (10, 200, 30)),
    overview_downsample=8.0,
    overview_height=288,
    overview_width=273,
)


def blobs(height: int, width: int) -> NDArray[np.uint8]:
    """Labels 0, 1, 2 in blobs of a few hundred pixels, with holes, cut by the borders of the shards."""
    generator = np.random.default_rng(3)
    labels = np.zeros((height, width), np.uint8)
    for value in (1, 2, 0):
        for _ in range(150):
            row, col, radius = (
                generator.uniform(0, height),
                generator.uniform(0, width),
                generator.uniform(3, 40),
            )
            rows = slice(max(int(row - radius), 0), int(row + radius) + 1)
            cols = slice(max(int(col - radius), 0), int(col + radius) + 1)
            y, x = np.ogrid[rows, cols]
            part = labels[rows, cols]
            disc = (y - row) ** 2 + (x - col) ** 2 <= radius**2
            part[disc[: part.shape[0], : part.shape[1]]] = value
    labels[2040:2060, 100:2100] = 1  # from shard to shard
    return labels


def write_store(
    place: Path, labels: NDArray[np.uint8], spec: MaskSpec = SPEC, **slide: object
) -> MaskPyramid:
    """A finished result with this mask."""
    path = place.with_name("slide.tiff")
    told = {"path": str(path), "mpp": 0.5, "mpp_source": "file", "reader": "tiff"}
    told["fingerprint"] = open_slide(path).fingerprint if path.exists() else "gone"
    manifest = {"slide": told | slide, "uncertainty": "margin", "model": {"name": "m", "sha256": "0" * 64}}
    mask = MaskPyramid.create(place, spec, manifest=manifest)
    for level in range(mask.levels):
        for shard in mask.shards(level):
            if level:
                mask.reduce(shard)
            else:
                mask.write(shard, labels[mask.box(shard).slices])
    grid = spec.tiles
    source = np.full((grid.rows, grid.cols), Source.MODEL_1, np.uint8)
    source[:, 1:3] = Source.MODEL_2
    mask.write_source(source)
    mask.note(whole=True, complete=True)
    return mask


@pytest.fixture(scope="module")
def labels() -> NDArray[np.uint8]:
    return blobs(SPEC.height, SPEC.width)


@pytest.fixture(scope="module")
def mask(tmp_path_factory: pytest.TempPathFactory, labels: NDArray[np.uint8]) -> MaskPyramid:
    folder = tmp_path_factory.mktemp("export")
    write_slide(folder / "slide.tiff", [texture(1151, 1090)])
    return write_store(folder / "slide.seg.ome.zarr", labels)


@pytest.fixture(scope="module")
def geojson(mask: MaskPyramid) -> Path:
    return export(mask, to="geojson", workers=1).path


@pytest.fixture(scope="module")
def table(mask: MaskPyramid) -> Path:
    return export(mask, to="csv").path


def features(path: Path) -> list[dict[str, Any]]:
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    collection = json.loads(text)
    assert collection["type"] == "FeatureCollection"
    return list(collection["features"])


def polygons(path: Path) -> list[shapely.Polygon]:
    return [shapely.geometry.shape(feature["geometry"]) for feature in features(path)]


# GeoJSON


def test_polygons_are_the_mask_in_pixels_of_the_slide(geojson: Path, labels: NDArray[np.uint8]) -> None:
    found = features(geojson)
    assert len(found) == len(regionprops(label(labels, background=0, connectivity=1)))
    per_pixel = 0.5**2  # pixels of the slide, which has half the resolution, in one of the mask
    for value, name in enumerate(SPEC.classes, 1):
        of_class = [f for f in found if f["properties"]["classification"]["name"] == name]
        shapes = [shapely.geometry.shape(f["geometry"]) for f in of_class]
        assert all(shape.is_valid for shape in shapes)
        assert sum(shape.area for shape in shapes) == (labels == value).sum() * per_pixel
        for feature, shape in zip(of_class, shapes, strict=True):
            assert feature["properties"]["measurements"]["area_um2"] == pytest.approx(shape.area * 0.5**2)
    assert any(len(f["geometry"]["coordinates"]) > 1 for f in found)  # holes
    inside = np.zeros(labels.shape, np.uint8)
    for feature in found[:40]:
        shape = shapely.geometry.shape(feature["geometry"])
        left, top, right, bottom = (int(2 * bound) for bound in shape.bounds)
        xs, ys = np.meshgrid(np.arange(left, right) + 0.5, np.arange(top, bottom) + 0.5)
        value = SPEC.classes.index(feature["properties"]["classification"]["name"]) + 1
        there = shapely.contains_xy(shape, xs / 2, ys / 2)
        assert (labels[top:bottom, left:right][there] == value).all()
        inside[top:bottom, left:right][there] += 1
    assert inside.max() == 1


def test_features_are_as_qupath_takes_them(geojson: Path) -> None:
    found = features(geojson)
    assert len({uuid.UUID(feature["id"]) for feature in found}) == len(found)
    first = found[0]["properties"]
    assert first["objectType"] == "detection"
    assert first["classification"]["color"] in [[220, 40, 40], [10, 200, 30]]
    assert set(first["measurements"]) == {"area_um2", "perimeter_um", "uncertainty"}
    assert "NaN" not in geojson.read_text()
    for feature in found:
        for ring in feature["geometry"]["coordinates"]:
            assert ring[0] == ring[-1]


def test_objects_can_be_annotations(tmp_path: Path) -> None:
    spec = replace(SPEC, height=64, width=64, overview_height=8, overview_width=8)
    mask = write_store(tmp_path / "a.zarr", discs(64, 64, (20, 20, 9)), spec)
    done = export(mask, tmp_path / "a.geojson", options=Options(kind="annotation"))
    assert features(done.path)[0]["properties"]["objectType"] == "annotation"


def test_positions_count_from_where_qupath_crops(tmp_path: Path) -> None:
    """Our level 0 begins at 96, 64 of the canvas; the slide says that it was scanned from 101, 70 on."""
    spec = replace(SPEC, height=40, width=50, overview_height=5, overview_width=7)
    labels = np.zeros((40, 50), np.uint8)
    labels[20:22, 30:32] = 1
    mask = write_store(tmp_path / "a.zarr", labels, spec, mpp=0.25, origin=[96, 64], bounds=[101, 70])
    (polygon,) = polygons(export(mask, tmp_path / "a.geojson").path)
    assert polygon.bounds == (30 + 64 - 70, 20 + 96 - 101, 32 + 64 - 70, 22 + 96 - 101)


def test_the_same_mask_gives_the_same_bytes_on_any_number_of_threads(
    tmp_path: Path, mask: MaskPyramid, geojson: Path
) -> None:
    four = export(mask, tmp_path / "a.geojson.gz", workers=4, options=Options(gzip=True)).path
    again = export(mask, tmp_path / "b.json.gz", workers=2).path
    assert four.read_bytes() == again.read_bytes()
    assert gzip.decompress(four.read_bytes()) == geojson.read_bytes()


def test_simplified_outlines_have_fewer_points_and_keep_their_area(
    tmp_path: Path, mask: MaskPyramid, geojson: Path
) -> None:
    exact = polygons(geojson)
    simple = polygons(export(mask, tmp_path / "b.geojson", options=Options(simplify_px=1)).path)
    for one, two in zip(exact, simple, strict=True):
        assert two.area == pytest.approx(one.area, rel=0.01)
        assert two.hausdorff_distance(one) < 1
    assert shapely.get_num_coordinates(simple).sum() < shapely.get_num_coordinates(exact).sum() / 2


def test_a_large_thin_object_is_not_moved_to_keep_its_area(tmp_path: Path) -> None:
    turns = np.linspace(0, 1.5, 60)
    places = [(int(60 + 850 * np.sin(t)), int(60 + 850 * (1 - np.cos(t))), 14) for t in turns]
    arc = write_store(tmp_path / "a.zarr", discs(1000, 1000, *places), replace(SPEC, height=1000, width=1000))
    (one,) = polygons(export(arc, tmp_path / "exact.geojson").path)
    (two,) = polygons(export(arc, tmp_path / "simple.geojson", options=Options(simplify_px=1)).path)
    assert two.hausdorff_distance(one) <= 2
    assert two.area == pytest.approx(one.area)


def test_an_empty_mask_is_an_empty_collection(tmp_path: Path) -> None:
    mask = write_store(tmp_path / "a.zarr", np.zeros((SPEC.height, SPEC.width), np.uint8))
    assert export(mask, tmp_path / "a.geojson").objects == 0
    assert features(tmp_path / "a.geojson") == []
    assert export(mask, tmp_path / "a.csv").objects == 0
    assert export(mask, tmp_path / "a.parquet").objects == 0
    assert pq.read_table(tmp_path / "a.parquet").num_rows == 0


# Tables


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_says_what_is_measured(table: Path, labels: NDArray[np.uint8]) -> None:
    found = rows(table)
    whole = label(labels, background=0, connectivity=1)
    expected = {tuple(region.bbox): region for region in regionprops(whole)}
    for row in found:
        bounds = (float(row[name]) * 2 for name in ("top_px", "left_px", "bottom_px", "right_px"))
        region = expected.pop(tuple(int(bound) for bound in bounds))
        assert row["class"] == SPEC.classes[labels[tuple(region.coords[0])] - 1]
        assert float(row["area_um2"]) == pytest.approx(region.area * 0.25**2)
        centre = (np.array(region.centroid) + 0.5) * 0.25
        assert (float(row["centroid_y_um"]), float(row["centroid_x_um"])) == pytest.approx(centre, abs=1e-3)
        if row["class"] == "tumour" and region.area_filled == region.area and region.area < 3000:
            # With a diagonal neighbour of the same class the two differ by a pixel or so.
            crofton = perimeter_crofton(region.image, directions=4) * 0.25
            assert float(row["perimeter_um"]) == pytest.approx(crofton, abs=1.0)
    assert not expected


def test_the_source_is_that_of_the_tiles(table: Path) -> None:
    found = rows(table)
    assert {row["source"] for row in found} == {"model_1", "model_2", "both"}
    for row in found:
        first, last = float(row["left_px"]) * 2 // 512, (float(row["right_px"]) * 2 - 1) // 512
        tiles = set(np.arange(first, last + 1))
        if tiles <= {1, 2}:
            assert row["source"] == "model_2"
        elif not tiles & {1, 2}:
            assert row["source"] == "model_1"


def test_uncertainty_is_the_mean_over_the_objects_pixels(tmp_path: Path) -> None:
    spec = replace(SPEC, classes=("nucleus",), colours=((1, 2, 3),), height=64, width=64)
    spec = replace(spec, overview_height=8, overview_width=8)
    labels = np.zeros((64, 64), np.uint8)
    labels[8:16, 8:16] = 1  # four pixels of Model 1
    mask = write_store(tmp_path / "a.zarr", labels, spec)
    probability = np.full((1, 16, 16), 255, np.uint8)
    probability[0, 2, 2:4] = 51, 204  # a margin of 1 - |1 - 2p| = 0.4 each
    mask.write_probability(spec.coarse.box(next(iter(spec.coarse))), probability)
    (row,) = rows(export(mask, tmp_path / "a.csv").path)
    assert float(row["uncertainty"]) == pytest.approx(0.4 * 2 / 4, abs=1e-3)


def test_parquet_takes_as_many_classes_as_a_mask(tmp_path: Path) -> None:
    names = tuple(f"class {label}" for label in range(1, 256))
    spec = replace(SPEC, classes=names, colours=((1, 2, 3),) * 255, height=64, width=1024)
    spec = replace(spec, overview_height=8, overview_width=128)
    labels = np.zeros((64, 1024), np.uint8)
    labels[4::8, 4::8] = np.arange(1024).reshape(8, 128) % 256
    mask = write_store(tmp_path / "a.zarr", labels, spec)
    found = pq.read_table(export(mask, tmp_path / "a.parquet").path)["class"].to_pylist()
    assert set(found) == set(names)


def test_parquet_holds_what_csv_holds(tmp_path: Path, mask: MaskPyramid, table: Path) -> None:
    found = pq.read_table(export(mask, tmp_path / "a.parquet").path).to_pylist()
    assert [{name: str(value) for name, value in row.items()} for row in found] == rows(table)


def test_ids_are_those_of_the_geojson(geojson: Path, table: Path) -> None:
    assert [row["id"] for row in rows(table)] == [feature["id"] for feature in features(geojson)]


def test_small_objects_can_be_left_out(tmp_path: Path, mask: MaskPyramid, table: Path) -> None:
    everything = rows(table)
    areas = sorted(float(row["area_um2"]) for row in everything)
    least = areas[len(areas) // 2]
    some = rows(export(mask, tmp_path / "b.csv", options=Options(min_area_um2=least)).path)
    assert [row for row in everything if float(row["area_um2"]) >= least] == some


# Touching nuclei


def discs(height: int, width: int, *places: tuple[int, int, int]) -> NDArray[np.uint8]:
    y, x = np.ogrid[:height, :width]
    return np.any([(y - row) ** 2 + (x - col) ** 2 <= r**2 for row, col, r in places], axis=0).astype(
        np.uint8
    )


def test_touching_discs_are_cut_apart_and_keep_every_pixel(tmp_path: Path) -> None:
    labels = discs(SPEC.height, SPEC.width, (1000, 2030, 30), (1000, 2080, 26), (300, 300, 20))
    mask = write_store(tmp_path / "a.zarr", labels)
    whole = [int(area) for batch in objects(mask) for area in batch.table["area"]]
    cut = [int(area) for batch in objects(mask, split=True) for area in batch.table["area"]]
    assert (len(whole), len(cut)) == (2, 3)
    assert sum(whole) == sum(cut) == labels.sum()


def test_an_uneven_outline_is_not_cut() -> None:
    from wsi_twostage.export.split import split_keys
    from wsi_twostage.tiles import Box

    labels = np.zeros((60, 120), np.uint8)
    labels[20:40, 10:110] = 1
    labels[19:20, 20:40] = labels[40:41, 60:90] = 1
    labels[20:21, 50:55] = 0
    keys = split_keys(labels, Box(0, 0, 60, 120), 120, 1.0)
    assert len(np.unique(keys[keys > 0])) == 1


def told(mask: MaskPyramid, block: int) -> NDArray[np.void]:
    """The table of all objects, cut, in order."""
    found = np.concatenate([batch.table for batch in objects(mask, split=True, block=block)])
    return found[np.argsort(found["first"])]


def test_cut_objects_do_not_know_the_blocks(tmp_path: Path) -> None:
    """No duplicates at borders, nothing lost: the same objects, to the pixel, however they were read."""
    labels = blobs(SPEC.height, SPEC.width)
    whole = label(labels, background=0, connectivity=1)
    for region in regionprops(whole):
        if max(np.subtract(region.bbox[2:], region.bbox[:2])) > HALO:
            labels[whole == region.label] = 0
    mask = write_store(tmp_path / "a.zarr", labels)
    one, other = told(mask, 2048), told(mask, 512)
    assert len(one) > len(regionprops(label(labels, background=0, connectivity=1)))
    for name in ("label", "first", "area", "rows", "cols", "top", "left", "bottom", "right"):
        np.testing.assert_array_equal(one[name], other[name])


def test_seeds_of_one_depth_do_not_know_the_blocks(tmp_path: Path) -> None:
    """Real nuclei have many; which of them is flooded first must not hang on what else a block holds."""
    elsewhere = np.random.default_rng(0).random((SPEC.height, SPEC.width)) > 0.001
    labels = (distance_transform_edt(elsewhere) < 8).astype(np.uint8)
    mask = write_store(tmp_path / "a.zarr", labels)
    np.testing.assert_array_equal(told(mask, 2048)[["first", "area"]], told(mask, 512)[["first", "area"]])


def test_what_is_larger_than_the_halo_keeps_every_pixel(mask: MaskPyramid, labels: NDArray[np.uint8]) -> None:
    found = told(mask, 512)
    assert len(np.unique(found["first"])) == len(found)
    assert found["area"].sum() == (labels > 0).sum()


# Images


def test_the_tiff_is_the_mask_on_every_level(tmp_path: Path, mask: MaskPyramid) -> None:
    done = export(mask, to="ome-tiff", target=tmp_path / "a.ome.tif")
    with tifffile.TiffFile(done.path) as tiff:
        assert tiff.is_ome
        assert tiff.is_bigtiff
        series = tiff.series[0]
        assert len(series.levels) == mask.levels
        for level, page in enumerate(series.levels):
            np.testing.assert_array_equal(page.asarray(), mask.lazy(level).compute())
            assert page.keyframe.photometric == tifffile.PHOTOMETRIC.PALETTE
            assert (page.keyframe.colormap[:, 1] >> 8).tolist() == [220, 40, 40]
        told = tiff.ome_metadata
        assert told is not None
        assert 'PhysicalSizeX="0.25"' in told
        assert "1 tumour, 2 stroma" in told


def test_the_tiff_is_a_slide_that_we_read_again(tmp_path: Path, mask: MaskPyramid) -> None:
    slide = open_slide(export(mask, tmp_path / "a.ome.tif").path)
    assert (slide.height, slide.width, slide.mpp) == (SPEC.height, SPEC.width, 0.25)


def test_the_png_holds_labels_in_the_colours_of_the_classes(tmp_path: Path, mask: MaskPyramid) -> None:
    done = export(mask, tmp_path / "a.png", options=Options(mpp=1.1))
    with Image.open(done.path) as picture:
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.asarray(picture), mask.lazy(2).compute())
        palette = picture.getpalette()
        assert palette is not None
        assert palette[3:9] == [220, 40, 40, 10, 200, 30]
        assert np.asarray(picture.convert("RGBA"))[..., 3].min() == 0


def test_without_a_scale_the_png_has_a_usual_size(mask: MaskPyramid, monkeypatch: pytest.MonkeyPatch) -> None:
    assert images.level_at(mask, None) == 0
    monkeypatch.setattr(images, "USUAL_PX", 1000)
    assert images.level_at(mask, None) == 2


def test_a_picture_that_is_too_large_is_refused_with_a_scale_that_fits(mask: MaskPyramid) -> None:
    with pytest.raises(ConfigError, match=r"2180 x 2301 px at 0.25 um/px .* --mpp 0.5 fits"):
        images.level_at(mask, 0.25, most_px=2000)


def test_the_overlay_is_the_slide_with_outlines(tmp_path: Path, mask: MaskPyramid) -> None:
    path = export(mask, tmp_path / "a.png", options=Options(mpp=0.5, overlay=True)).path
    picture = np.asarray(Image.open(path))
    slide = open_slide(mask.manifest["slide"]["path"]).view(1).array().compute()
    level = mask.lazy(1).compute()
    changed = (picture != slide).any(2)
    assert changed.any()
    assert (level[changed] > 0).all()
    assert {tuple(colour) for colour in picture[changed]} == set(SPEC.colours)


def test_where_the_slide_cannot_be_read_the_overlay_is_black(
    tmp_path: Path, labels: NDArray[np.uint8]
) -> None:
    slide = write_slide(tmp_path / "slide.tiff", [np.full((1151, 1090, 3), 200, np.uint8)])
    change_tile(slide, 0, lambda tile: b"hello")
    mask = write_store(tmp_path / "slide.seg.ome.zarr", np.zeros_like(labels))
    events: list[Event] = []
    options = Options(mpp=0.5, overlay=True)
    path = export(mask, tmp_path / "a.png", options=options, listener=events.append).path
    picture = np.asarray(Image.open(path))
    assert (picture[:64, :64] == 0).all()  # the stored tile
    assert (picture[128:] == 200).all()
    assert any(isinstance(event, Note) and "cannot be read; it is black" in event.text for event in events)


def test_without_its_slide_the_overlay_is_on_the_overview(tmp_path: Path, labels: NDArray[np.uint8]) -> None:
    mask = write_store(tmp_path / "a.zarr", labels)
    events: list[Event] = []
    options = Options(overlay=True, mpp=2.0)
    path = export(mask, tmp_path / "a.png", options=options, listener=events.append).path
    assert np.asarray(Image.open(path)).shape == (288, 273, 3)
    assert any(isinstance(event, Note) and "overview" in event.text for event in events)


def test_the_overlay_is_on_the_slide_where_that_was_moved_to(
    tmp_path: Path, mask: MaskPyramid, labels: NDArray[np.uint8]
) -> None:
    slide = mask.manifest["slide"]
    moved = shutil.copy(slide["path"], tmp_path / "moved.tiff")
    other = write_store(tmp_path / "a.zarr", labels, path="/gone.tiff", fingerprint=slide["fingerprint"])
    here = export(mask, tmp_path / "a.png", options=Options(mpp=0.5, overlay=True)).path
    there = export(other, tmp_path / "b.png", options=Options(mpp=0.5, overlay=True, slide=str(moved))).path
    assert there.read_bytes() == here.read_bytes()
    another = write_slide(tmp_path / "another.tiff", [texture(64, 64)])
    for place, message in ((another, "is not the slide that"), (tmp_path / "no.tiff", "no.tiff")):
        with pytest.raises(WsiError, match=message):
            export(other, tmp_path / "c.png", options=Options(overlay=True, slide=str(place)))
    assert not (tmp_path / "c.png").exists()


# What is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"to": "shapefile"}, "--to shapefile is unknown; use geojson, csv"),
        ({"target": "a.xyz"}, "a.xyz does not say it"),
        ({}, "--to is missing"),
        ({"to": "csv", "options": Options(overlay=True)}, "--overlay is for --to png, not for csv"),
        ({"to": "csv", "options": Options(slide="s")}, "--slide is for --to png and dicom-seg, not for csv"),
        ({"to": "png", "options": Options(slide="s")}, "--slide is for a PNG with --overlay"),
        ({"to": "png", "options": Options(split=True)}, "--split is for --to geojson and csv and parquet"),
        ({"to": "geojson", "options": Options(kind="cell")}, "use annotation or detection"),
        ({"to": "geojson", "options": Options(min_area_um2=-1)}, "--min-area -1; it must be 0 or more"),
        ({"to": "geojson", "options": Options(simplify_px=float("nan"))}, "--simplify nan"),
        ({"to": "png", "options": Options(mpp=-1)}, "--mpp -1; it must be above 0"),
        ({"to": "png", "options": Options(mpp=math.inf)}, "--mpp inf; it must be above 0"),
        ({"to": "csv", "target": "a.parquet"}, "--to csv, but a.parquet is named like parquet"),
        ({"to": "geojson", "target": "a.csv.gz"}, "--to geojson, but a.csv.gz is named like csv"),
        ({"target": "a.csv", "options": Options(gzip=True)}, "a.csv does not end in .gz; call it a.csv.gz"),
        ({"to": "csv", "workers": 0}, "workers=0; it must be 1 or more"),
    ],
)
def test_bad_options_are_one_line(mask: MaskPyramid, arguments: dict[str, Any], message: str) -> None:
    before = sorted(mask.path.parent.iterdir())
    with pytest.raises(ConfigError, match=message):
        export(mask, **arguments)
    assert sorted(mask.path.parent.iterdir()) == before


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (lambda mask, folder: folder / "there.csv", "there.csv exists; give --overwrite"),
        (lambda mask, folder: mask.path / "a.csv", "is a part of the result"),
        (lambda mask, folder: folder, "is a folder"),
    ],
)
def test_what_is_there_is_kept(
    tmp_path: Path, mask: MaskPyramid, target: Callable[[MaskPyramid, Path], Path], message: str
) -> None:
    (tmp_path / "there.csv").write_text("mine")
    with pytest.raises(StoreError, match=message):
        export(mask, target(mask, tmp_path), to="csv")
    assert (tmp_path / "there.csv").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["there.csv"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_and_a_dash_are_no_files(
    tmp_path: Path, mask: MaskPyramid, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    monkeypatch.chdir(tmp_path)
    for overwrite in (False, True):
        with pytest.raises(StoreError, match="is a device or a pipe; name a file"):
            export(mask, "pipe.csv", overwrite=overwrite)
        with pytest.raises(StoreError, match="nothing is written to stdout"):
            export(mask, "-", to="csv", overwrite=overwrite)
    assert (tmp_path / "pipe.csv").is_fifo()
    assert [path.name for path in tmp_path.iterdir()] == ["pipe.csv"]


def test_the_slide_is_not_overwritten(mask: MaskPyramid) -> None:
    slide = Path(mask.manifest["slide"]["path"])
    before = slide.read_bytes()
    with pytest.raises(StoreError, match="is the slide"):
        export(mask, slide, to="ome-tiff", overwrite=True)
    assert slide.read_bytes() == before


def test_the_slide_is_not_overwritten_where_it_was_moved_to(tmp_path: Path, mask: MaskPyramid) -> None:
    moved = Path(shutil.copy(mask.manifest["slide"]["path"], tmp_path / "slide.ome.tif"))
    before = moved.read_bytes()
    with pytest.raises(StoreError, match="is the slide, moved"):
        export(mask, moved, overwrite=True)
    assert moved.read_bytes() == before


@pytest.mark.parametrize("reader", ["tiff", "openslide", "zarr", "image"])
def test_what_is_no_slide_is_overwritten_whatever_read_the_slide(
    tmp_path: Path, labels: NDArray[np.uint8], reader: str
) -> None:
    mask = write_store(tmp_path / "o.zarr", labels, reader=reader)
    for old in (b"old", write_slide(tmp_path / "other.tiff", [texture(300, 300)]).read_bytes()):
        (tmp_path / "a.csv").write_bytes(old)
        export(mask, tmp_path / "a.csv", overwrite=True)
        assert (tmp_path / "a.csv").read_bytes() != old


def test_nothing_is_written_into_a_zarr(tmp_path: Path, mask: MaskPyramid, labels: NDArray[np.uint8]) -> None:
    other = write_store(tmp_path / "other.zarr", labels)
    with pytest.raises(StoreError, match=r"lies in .*other\.zarr, which is a Zarr of its own"):
        export(mask, other.path / "zarr.json", to="geojson", overwrite=True)
    assert other.manifest["complete"]


@pytest.mark.parametrize("target", ["a.csv", "a.ome.tif"])
def test_a_result_that_is_replaced_meanwhile_is_not_exported(
    tmp_path: Path, labels: NDArray[np.uint8], target: str
) -> None:
    mask = write_store(tmp_path / "a.zarr", labels)

    def replace_it(event: Event) -> None:
        if isinstance(event, TilesDone) and not (tmp_path / "old.zarr").exists():
            mask.path.rename(tmp_path / "old.zarr")
            write_store(tmp_path / "a.zarr", np.zeros_like(labels))

    with pytest.raises(StoreError, match=r"a\.zarr was replaced while it was exported; run again"):
        export(mask, tmp_path / target, listener=replace_it)
    assert not (tmp_path / target).exists()


def test_a_link_that_leads_to_itself_is_one_line(tmp_path: Path, mask: MaskPyramid) -> None:
    (tmp_path / "a.csv").symlink_to("a.csv")
    with pytest.raises(StoreError, match=r"a\.csv exists; give --overwrite"):
        export(mask, tmp_path / "a.csv")


def test_overwrite_replaces_a_file(tmp_path: Path, mask: MaskPyramid) -> None:
    (tmp_path / "a.csv").write_text("old")
    export(mask, tmp_path / "a.csv", overwrite=True)
    assert len(rows(tmp_path / "a.csv")) > 100


def test_an_export_that_fails_leaves_nothing(tmp_path: Path, mask: MaskPyramid) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, TilesDone):
            raise KeyboardInterrupt

    for name in ("a.geojson", "a.parquet", "a.ome.tif", "a.png"):
        with pytest.raises(KeyboardInterrupt):
            export(mask, tmp_path / "new" / name, listener=stop)
        assert list((tmp_path / "new").iterdir()) == []


def test_what_a_killed_export_left_goes_with_the_next(tmp_path: Path, mask: MaskPyramid) -> None:
    script = (
        "import os, signal, sys; from wsi_twostage.export import export; "
        "export(*sys.argv[1:], listener=lambda event: os.kill(os.getpid(), signal.SIGKILL))"
    )
    command = [sys.executable, "-c", script, mask.path, tmp_path / "a.csv"]
    assert subprocess.run(command, timeout=120, check=False).returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1
    export(mask, tmp_path / "a.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_a_full_disk_leaves_what_was_there(
    tmp_path: Path, mask: MaskPyramid, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(geojson_module, "write_geojson", full)
    (tmp_path / "a.geojson").write_text("old")
    with pytest.raises(WriteError, match=r"a.geojson: cannot be written \(No space left on device\)"):
        export(mask, tmp_path / "a.geojson", overwrite=True)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("labels/segmentation/0/c", "of level 0"),
        ("wsi_twostage/probability/c", "Model 1's answer to rows .* of its grid"),
        ("wsi_twostage/source/c", "the map of sources"),
        ("wsi_twostage/source/zarr.json", "the map of sources"),
    ],
)
def test_a_damaged_result_is_one_line(
    tmp_path: Path, labels: NDArray[np.uint8], part: str, said: str
) -> None:
    mask = write_store(tmp_path / "a.zarr", labels)
    mask.write_probability(
        SPEC.coarse.box(Tile(0, 0)), np.full((3, SPEC.coarse.tile, SPEC.coarse.tile), 85, np.uint8)
    )
    place = mask.path / part
    (place if place.is_file() else next(p for p in place.rglob("*") if p.is_file())).write_bytes(b"hello")
    _open_array.cache_clear()  # as in another process
    with pytest.raises(StoreError, match=rf"{said} cannot be read .*; wsi-seg verify says"):
        export(mask, tmp_path / "a.geojson")
    assert not (tmp_path / "a.geojson").exists()


@pytest.mark.parametrize(
    ("package", "to", "options"),
    [
        ("pyarrow.parquet", "parquet", Options()),
        ("highdicom", "dicom-seg", Options()),
        ("shapely", "geojson", Options(simplify_px=1)),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    mask: MaskPyramid, monkeypatch: pytest.MonkeyPatch, package: str, to: str, options: Options
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=r"pip install 'wsi-twostage\["):
        export(mask, to=to, options=options)


def test_an_unfinished_result_is_written_and_said_to_be_so(tmp_path: Path, labels: NDArray[np.uint8]) -> None:
    mask = write_store(tmp_path / "a.zarr", labels)
    mask.note(complete=False)
    events: list[Event] = []
    export(mask, tmp_path / "a.csv", listener=events.append)
    assert any(isinstance(event, Note) and "not finished" in event.text for event in events)


def test_tiles_that_could_not_be_read_are_said(tmp_path: Path, labels: NDArray[np.uint8]) -> None:
    mask = write_store(tmp_path / "a.zarr", labels)
    mask.note(counts={"unreadable": 3, "crashed": 1})
    events: list[Event] = []
    export(mask, tmp_path / "a.csv", listener=events.append)
    assert Note("4 tiles have no answer of Model 2; there the mask is Model 1's, or empty") in events


def test_progress_reaches_its_total(tmp_path: Path, mask: MaskPyramid) -> None:
    for name in ("a.csv", "a.png", "a.ome.tif"):
        events: list[Event] = []
        export(mask, tmp_path / name, listener=events.append)
        totals = [event.total for event in events if isinstance(event, Started)]
        assert totals == [sum(event.tiles for event in events if isinstance(event, TilesDone))]
        assert isinstance(events[-1], Finished)


# The command


def test_the_command_writes_beside_the_result(tmp_path: Path) -> None:
    spec = replace(SPEC, height=64, width=64, overview_height=8, overview_width=8)
    write_store(tmp_path / "s.seg.ome.zarr", discs(64, 64, (20, 20, 9)), spec)
    done = wsi_seg("export", "s.seg.ome.zarr", "--to", "geojson", cwd=tmp_path)
    assert done.stdout == f"{tmp_path / 's.seg.geojson'}: 1 objects, 0.0 MB\n", done.stderr
    assert "export: done" in done.stderr
    again = wsi_seg("export", "s.seg.ome.zarr", "--to", "geojson", "-q", cwd=tmp_path)
    assert (again.returncode, again.stdout) == (2, "")
    assert len(again.stderr.splitlines()) == 1
    assert "--overwrite" in again.stderr
    as_json = wsi_seg("export", "s.seg.ome.zarr", "-o", "c.csv", "--json", "-q", cwd=tmp_path)
    assert json.loads(as_json.stdout)["objects"] == 1
