"""The mask store: valid, aligned, safe to write in parallel, and never over somebody else's files."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import ome_zarr_models
import pytest
import yaozarrs
import zarr
from numpy.typing import NDArray

from wsi_twostage.errors import ConfigError, StoreError
from wsi_twostage.mask import CHUNK, SHARD, MaskPyramid, MaskSpec, Shard, Source, majority
from wsi_twostage.tiles import Box

SMALL = MaskSpec(
    height=1101,
    width=2303,  # two shards beside each other, both clipped, 4 levels
    mpp=0.25,
    ratio=4,
    tile=256,
    classes=("nucleus",),
    colours=((220, 40, 40),),
    overview_downsample=4.0,
    overview_height=276,
    overview_width=576,
)
MANIFEST = {"slide": "a.svs", "threshold": 0.5}
NEW = {"whole": False, "complete": False}


@pytest.fixture
def pyramid(tmp_path: Path) -> MaskPyramid:
    return MaskPyramid.create(tmp_path / "a.seg.ome.zarr", SMALL, manifest=MANIFEST)


def blobs(height: int, width: int, classes: int = 1) -> NDArray[np.uint8]:
    """Labels 0..classes in random blobs of a few pixels."""
    coarse = np.random.default_rng(0).integers(0, classes + 1, (height // 3 + 1, width // 3 + 1), np.uint8)
    return coarse.repeat(3, 0).repeat(3, 1)[:height, :width]


def fill(pyramid: MaskPyramid, labels: NDArray[np.uint8]) -> None:
    """Write level 0 and reduce every level above it."""
    for shard in pyramid.shards():
        pyramid.write(shard, labels[pyramid.box(shard).slices])
    for level in range(1, pyramid.levels):
        for shard in pyramid.shards(level):
            pyramid.reduce(shard)


def files(folder: Path) -> set[str]:
    """Files below a folder that hold data, by relative path."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {str(path) for path in found if path.name != "zarr.json"}


# majority


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        pytest.param([[1, 1], [1, 0]], 1, id="three of four"),
        pytest.param([[0, 0], [3, 0]], 0, id="background wins with three"),
        pytest.param([[5, 0], [0, 2]], 0, id="two of background against two classes"),
        pytest.param([[0, 1], [0, 1]], 1, id="a tie with background goes to the class"),
        pytest.param([[2, 1], [1, 2]], 2, id="a tie of classes goes to the first"),
        pytest.param([[0, 3], [2, 1]], 3, id="all different: the first class"),
        pytest.param([[4, 4], [0, 0]], 4, id="order does not matter against background"),
        pytest.param([[0], [7]], 7, id="one column"),
        pytest.param([[2, 0]], 2, id="one row"),
        pytest.param([[0]], 0, id="one pixel"),
        pytest.param([[255, 254], [254, 255]], 255, id="largest labels"),
    ],
)
def test_majority_of_one_block(block: list[list[int]], expected: int) -> None:
    assert majority(np.array(block, np.uint8)).tolist() == [[expected]]


def test_majority_agrees_with_counting() -> None:
    labels = np.random.default_rng(1).integers(0, 4, (37, 54), np.uint8)
    result = majority(labels)
    assert result.shape == (19, 27)
    for row, col in np.ndindex(result.shape):
        block = labels[2 * row : 2 * row + 2, 2 * col : 2 * col + 2].ravel().tolist()
        most = max(block.count(label) for label in block)
        tied = [label for label in block if block.count(label) == most]
        assert result[row, col] == next((label for label in tied if label), 0)


def test_majority_of_one_class_needs_no_counting() -> None:
    labels = np.random.default_rng(2).integers(0, 2, (37, 54), np.uint8)
    assert np.array_equal(majority(labels) * 7, majority(labels * 7))


def test_a_thin_line_survives_wherever_it_lies() -> None:
    for column in range(16):
        labels = np.zeros((16, 16), np.uint8)
        labels[:, column] = 1
        while labels.shape != (1, 1):
            labels = majority(labels)
            assert labels.any()


# The standard


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(SMALL, id="several levels"),
        pytest.param(
            replace(SMALL, height=40, width=30, overview_height=1, overview_width=1), id="one level"
        ),
        pytest.param(
            replace(
                SMALL, classes=("tumour", "stroma"), colours=((1, 2, 3), (4, 5, 6)), overview_downsample=31.7
            ),
            id="two classes",
        ),
    ],
)
def test_the_store_is_valid_ome_zarr(tmp_path: Path, spec: MaskSpec) -> None:
    pyramid = MaskPyramid.create(tmp_path / "a.ome.zarr", spec, manifest=MANIFEST)
    fill(pyramid, blobs(spec.height, spec.width, len(spec.classes)))
    pyramid.note(whole=True)
    expected = {"": "Image", "labels": "Labels", f"labels/{spec.name}": "ImageLabel"}
    for path, kind in expected.items():
        group = zarr.open_group(pyramid.path, path=path, mode="r")
        assert type(ome_zarr_models.open_ome_zarr(group)).__name__ == kind
        yaozarrs.validate_zarr_store(str(pyramid.path / path))


def ome(path: Path) -> dict[str, object]:
    """OME metadata of a group, as it lies on disk."""
    ome: dict[str, object] = json.loads((path / "zarr.json").read_text())["attributes"]["ome"]
    return ome


def test_a_viewer_finds_names_colours_and_classes(pyramid: MaskPyramid) -> None:
    assert ome(pyramid.path / "labels") == {"version": "0.5", "labels": ["segmentation"]}
    label = ome(pyramid.path / "labels/segmentation")["image-label"]
    assert label["colors"] == [{"label-value": 1, "rgba": [220, 40, 40, 255]}]  # type: ignore[index]
    assert label["properties"] == [{"label-value": 1, "class": "nucleus"}]  # type: ignore[index]
    assert label["source"] == {"image": "../../"}  # type: ignore[index]
    assert [c["color"] for c in ome(pyramid.path)["omero"]["channels"]] == [  # type: ignore[index]
        "FF0000",
        "00FF00",
        "0000FF",
    ]


def test_every_array_names_its_axes(pyramid: MaskPyramid) -> None:
    pyramid.write_tiles({"row": np.arange(3)})
    for path in pyramid.path.rglob("zarr.json"):
        array = json.loads(path.read_text())
        assert array["node_type"] == "group" or all(array["dimension_names"]), path


def transforms(path: Path) -> list[tuple[float, float]]:
    """(scale, translation) along the last axis, in micrometres, level by level."""
    pairs = []
    for dataset in ome(path)["multiscales"][0]["datasets"]:  # type: ignore[index]
        scale, translation = dataset["coordinateTransformations"]
        assert (scale["type"], translation["type"]) == ("scale", "translation")
        pairs.append((scale["scale"][-1], translation["translation"][-1]))
    return pairs


def test_overview_and_mask_have_as_many_levels(pyramid: MaskPyramid) -> None:
    assert len(transforms(pyramid.path)) == len(transforms(pyramid.path / "labels/segmentation")) == 4
    assert [pyramid.shape(level) for level in range(4)] == [(1101, 2303), (551, 1152), (276, 576), (138, 288)]


def test_every_level_shows_a_point_at_the_same_place(pyramid: MaskPyramid) -> None:
    # A pixel of a level that is d times coarser covers fine pixels k*d .. k*d+d-1, whose mean
    # position is k*d + (d-1)/2.
    mask, overview = transforms(pyramid.path / "labels/segmentation"), transforms(pyramid.path)
    fine_scale, fine_translation = mask[0]
    assert (fine_scale, fine_translation) == (0.25, 0.0)
    for (scale, translation), d in zip(mask + overview, [1, 2, 4, 8, 4, 8, 16, 32], strict=True):
        centre = np.mean([fine_translation + fine_scale * (5 * d + k) for k in range(d)])
        assert translation + scale * 5 == pytest.approx(centre)


# Shards


def test_reduced_shards_equal_the_majority_of_the_whole(tmp_path: Path) -> None:
    spec = replace(
        SMALL, height=2 * SHARD + 77, width=2 * SHARD + 1, classes=("a", "b"), colours=((1, 1, 1),) * 2
    )
    pyramid = MaskPyramid.create(tmp_path / "a", spec, manifest={})
    labels = blobs(spec.height, spec.width, 2)
    fill(pyramid, labels)
    for level in range(pyramid.levels):
        assert pyramid.shape(level) == labels.shape
        assert np.array_equal(pyramid.read(Box(0, 0, *labels.shape), level), labels)
        assert np.array_equal(pyramid.lazy(level).compute(), labels)
        labels = majority(labels)


def test_parents_and_children_are_inverse(tmp_path: Path) -> None:
    pyramid = MaskPyramid(tmp_path, replace(SMALL, height=5 * SHARD + 1, width=3 * SHARD))
    for level in range(pyramid.levels):
        for shard in pyramid.shards(level):
            parent = pyramid.spec.parent(shard)
            assert (parent is None) == (level == pyramid.levels - 1)
            assert parent is None or shard in pyramid.spec.children(parent)
            assert all(pyramid.spec.parent(child) == shard for child in pyramid.spec.children(shard))
    children = [
        c
        for level in range(1, pyramid.levels)
        for s in pyramid.shards(level)
        for c in pyramid.spec.children(s)
    ]
    assert sorted(children) == [s for level in range(pyramid.levels - 1) for s in pyramid.shards(level)]


def test_a_shard_is_one_file_and_an_empty_one_is_none(pyramid: MaskPyramid) -> None:
    left, right = pyramid.shards()
    level0 = pyramid.path / "labels/segmentation/0"
    pyramid.write(left, np.ones((1101, 2048), np.uint8))
    pyramid.write(right, np.zeros((1101, 255), np.uint8))
    assert files(level0) == {"c/0/0"}
    pyramid.write(left, np.zeros((1101, 2048), np.uint8))
    assert files(level0) == set()


def test_a_part_of_a_shard_is_refused(pyramid: MaskPyramid) -> None:
    with pytest.raises(ValueError, match=r"\(1101, 255\), got uint8 of \(512, 255\)"):
        pyramid.write(Shard(0, 0, 1), np.ones((512, 255), np.uint8))


def test_probabilities_of_0_to_1_are_refused(pyramid: MaskPyramid) -> None:
    with pytest.raises(ValueError, match=r"expected uint8 .* got float32"):
        pyramid.write_probability(Box(0, 0, 276, 576), np.ones((1, 276, 576), np.float32))


def test_an_image_smaller_than_a_shard_has_one(tmp_path: Path) -> None:
    pyramid = MaskPyramid.create(tmp_path / "a", replace(SMALL, height=7, width=5), manifest={})
    assert pyramid.shards() == [Shard(0, 0, 0)]
    labels = blobs(7, 5)
    pyramid.write(Shard(0, 0, 0), labels)
    assert np.array_equal(pyramid.read(Box(2, 1, 4, 3)), labels[2:6, 1:4])


# Model 1, overview, tiles


def test_the_probability_comes_back(pyramid: MaskPyramid) -> None:
    left, right = (pyramid.box(shard).coarser(4) for shard in pyramid.shards())
    values = np.random.default_rng(0).integers(1, 256, (1, 276, 576), np.uint8)
    for box in (right, left):
        pyramid.write_probability(box, values[:, *box.slices])
    whole = Box(0, 0, 276, 576)
    assert np.array_equal(pyramid.read_probability(whole), values)
    # One file for each shard of the mask: the owner of one is the owner of the other.
    assert files(pyramid.path / "wsi_twostage/probability") == {"c/0/0/0", "c/0/0/1"}


@pytest.mark.parametrize(
    "box",
    [
        pytest.param(Box(0, 0, 276, 511), id="stops early"),
        pytest.param(Box(0, 256, 276, 320), id="starts late"),
        pytest.param(Box(0, 0, 275, 576), id="misses the last row"),
        pytest.param(Box(0, 0, 512, 576), id="leaves the image"),
    ],
)
def test_a_box_that_shares_a_shard_is_refused(pyramid: MaskPyramid, box: Box) -> None:
    with pytest.raises(ValueError, match="not made of whole blocks"):
        pyramid.write_probability(box, np.ones((1, box.height, box.width), np.uint8))


def test_several_classes_keep_background_too(tmp_path: Path) -> None:
    spec = replace(SMALL, classes=("a", "b"), colours=((1, 1, 1), (2, 2, 2)))
    pyramid = MaskPyramid.create(tmp_path / "a", spec, manifest={})
    assert pyramid.read_probability(Box(0, 0, 2, 2)).shape == (3, 2, 2)


def test_the_overview_is_averaged_level_by_level(pyramid: MaskPyramid) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (276, 576, 3), np.uint8)
    pyramid.write_overview(Box(0, 0, 276, CHUNK), rgb[:, :CHUNK])
    pyramid.write_overview(Box(0, CHUNK, 276, 64), rgb[:, CHUNK:])
    pyramid.finish_overview()
    expected = np.moveaxis(rgb, -1, 0).astype(int)
    for level in range(4):
        stored = zarr.open_array(pyramid.path, path=str(level), mode="r")[...]
        assert np.array_equal(stored, expected)
        expected = np.pad(expected, [(0, 0), *((0, size % 2) for size in expected.shape[1:])], mode="edge")
        shape = (3, expected.shape[1] // 2, 2, expected.shape[2] // 2, 2)
        expected = np.floor(expected.reshape(shape).mean((2, 4)) + 0.5).astype(int)


def test_a_level_that_is_not_there_is_one_line(pyramid: MaskPyramid) -> None:
    for read in (lambda: pyramid.lazy(9), lambda: pyramid.read(Box(0, 0, 1, 1), 9)):
        with pytest.raises(ConfigError, match=r"the mask has no level 9; levels: 0\.\.3"):
            read()


def test_tissue_and_source_come_back(pyramid: MaskPyramid) -> None:
    tissue = blobs(276, 576).astype(bool)
    source = np.full((5, 9), Source.MODEL_2, np.uint8)
    pyramid.write_tissue(tissue)
    pyramid.write_source(source)
    assert np.array_equal(pyramid.read_tissue(), tissue)
    assert np.array_equal(pyramid.read_source(), source)


def test_the_tile_table_comes_back_in_order(pyramid: MaskPyramid) -> None:
    assert pyramid.tiles() == {}
    pyramid.write_tiles({"old": np.zeros(1)})
    columns = {
        "row": np.arange(45, dtype=np.int32),
        "col": np.zeros(45, np.int32),
        "uncertainty": np.linspace(0, 1, 45, dtype=np.float32),
        "chosen": np.arange(45) % 2 == 0,
    }
    pyramid.write_tiles(columns)
    stored = MaskPyramid(pyramid.path, pyramid.spec).tiles()
    assert list(stored) == list(columns)
    for name, column in columns.items():
        assert stored[name].dtype == column.dtype
        assert np.array_equal(stored[name], column)


@pytest.mark.parametrize(
    "columns",
    [
        pytest.param({"reason": np.array(["entropy"])}, id="text"),
        pytest.param({"row": np.zeros(2), "col": np.zeros(3)}, id="different lengths"),
        pytest.param({"row": np.zeros((2, 2))}, id="two axes"),
        pytest.param({"../row": np.zeros(2)}, id="a path"),
    ],
)
def test_a_column_that_does_not_fit_is_refused(
    pyramid: MaskPyramid, columns: dict[str, NDArray[np.generic]]
) -> None:
    with pytest.raises(ValueError, match="does not fit a table"):
        pyramid.write_tiles(columns)


# The life of a store


def test_a_whole_store_opens_with_its_spec_and_manifest(pyramid: MaskPyramid) -> None:
    assert pyramid.manifest == {**MANIFEST, **NEW}
    pyramid.note(seconds=1.5, whole=True)
    opened = MaskPyramid.open(str(pyramid.path))
    assert opened == pyramid
    assert opened.manifest == {**MANIFEST, "seconds": 1.5, "whole": True, "complete": False}


def test_a_pickled_store_is_small_and_works(pyramid: MaskPyramid) -> None:
    pyramid.write(Shard(0, 0, 1), np.ones((1101, 255), np.uint8))  # opens an array first
    data = pickle.dumps(pyramid)
    assert len(data) < 1000
    assert pickle.loads(data).read(Box(0, 2048, 1101, 255)).all()


def test_a_store_without_a_whole_mask_is_not_opened(pyramid: MaskPyramid) -> None:
    with pytest.raises(StoreError, match="stopped before the mask was whole"):
        MaskPyramid.open(pyramid.path)
    assert MaskPyramid.left(pyramid.path) == pyramid


def test_only_our_stores_are_opened(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        MaskPyramid.open(tmp_path / "missing")
    with pytest.raises(StoreError, match="not a wsi_twostage result"):
        MaskPyramid.open(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_result_near_a_path_that_is_none_is_named(pyramid: MaskPyramid) -> None:
    for near in (pyramid.path.parent, pyramid.path / "labels"):
        with pytest.raises(StoreError, match=f"not a wsi_twostage result; did you mean {pyramid.path}\\?$"):
            MaskPyramid.open(near)


def test_a_store_of_another_version_says_so(pyramid: MaskPyramid) -> None:
    group = zarr.open_group(pyramid.path, path="wsi_twostage", mode="r+")
    group.attrs["spec"] = {**pyramid.spec.to_json(), "unknown": 1}
    with pytest.raises(StoreError, match="another version"):
        MaskPyramid.open(pyramid.path)


def test_an_existing_result_is_refused(pyramid: MaskPyramid) -> None:
    with pytest.raises(StoreError, match="exists; give --overwrite or another --output"):
        MaskPyramid.create(pyramid.path, SMALL, manifest={})
    assert pyramid.manifest["slide"] == "a.svs"


@pytest.mark.parametrize("name", ["zarr.json", ".zgroup"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_nothing_is_written_into_another_zarr(tmp_path: Path, name: str, overwrite: bool) -> None:
    other = tmp_path / "other.zarr"
    other.mkdir()
    (other / name).write_text("{}")
    with pytest.raises(StoreError, match=r"other\.zarr, which is a Zarr of its own"):
        MaskPyramid.create(other / "a" / "o.zarr", SMALL, manifest={}, overwrite=overwrite)
    assert [path.name for path in other.iterdir()] == [name]


def test_overwriting_starts_anew(pyramid: MaskPyramid) -> None:
    fill(pyramid, blobs(1101, 2303))
    spec = replace(SMALL, height=300)
    new = MaskPyramid.create(pyramid.path, spec, manifest={"slide": "b.svs"}, overwrite=True)
    assert new.manifest == {"slide": "b.svs", **NEW}
    assert not new.read(Box(0, 0, 300, 2303)).any()
    assert list(pyramid.path.parent.iterdir()) == [pyramid.path]


@pytest.mark.parametrize("place", ["labels/mine/note.txt", "mine.csv"])
def test_what_somebody_put_into_a_result_is_not_overwritten_with_it(tmp_path: Path, place: str) -> None:
    root = MaskPyramid.create(tmp_path / "out", SMALL, manifest={}).path
    note = root / place
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text("precious")
    with pytest.raises(StoreError, match=r"mine(\.csv)? was put into what is to be overwritten; move it"):
        MaskPyramid.create(root, SMALL, manifest={}, overwrite=True)
    assert note.read_text() == "precious"
    note.unlink()
    if note.parent != root:
        note.parent.rmdir()
    MaskPyramid.create(root, SMALL, manifest={}, overwrite=True)


@pytest.mark.parametrize("kind", ["folder", "file", "zarr", "broken", "link"])
def test_what_is_not_ours_is_left_untouched(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "out"
    if kind == "file":
        path.write_text("mine")
    elif kind == "link":
        path.symlink_to(MaskPyramid.create(tmp_path / "real", SMALL, manifest={}).path)
    elif kind == "zarr":
        zarr.create_group(path, attributes={"marker": "wsi_twostage"}).create_group("wsi_twostage")
    else:
        (path / "wsi_twostage").mkdir(parents=True)
        (path / "wsi_twostage/zarr.json").write_text("{" if kind == "broken" else '"wsi_twostage"')
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StoreError, match="left untouched"):
        MaskPyramid.create(path, SMALL, manifest={}, overwrite=True)
    with pytest.raises(StoreError, match="exists"):
        MaskPyramid.create(path, SMALL, manifest={})
    assert sorted(tmp_path.rglob("*")) == before


def test_a_failed_creation_leaves_everything_as_it_was(pyramid: MaskPyramid) -> None:
    before = sorted(pyramid.path.parent.rglob("*"))
    for path in (pyramid.path, pyramid.path.with_name("new")):
        with pytest.raises(TypeError, match="JSON"):
            MaskPyramid.create(path, SMALL, manifest={"slide": object()}, overwrite=True)
    assert sorted(pyramid.path.parent.rglob("*")) == before


def test_missing_parents_are_made(tmp_path: Path) -> None:
    assert MaskPyramid.create(tmp_path / "a/b/c", SMALL, manifest={}).manifest == NEW


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"height": 0}, "height > 0", id="no pixels"),
        pytest.param({"mpp": float("nan")}, "mpp > 0", id="no scale"),
        pytest.param({"ratio": 3}, "ratio=3 does not divide", id="shards that do not shrink"),
        pytest.param({"classes": ()}, "1 to 255 classes", id="no class"),
        pytest.param({"colours": ((1, 2, 3), (4, 5, 6))}, "one colour each", id="a colour too many"),
        pytest.param({"colours": ((256, 0, 0),)}, "0..255", id="not a colour"),
        pytest.param({"name": "../x"}, "plain file name", id="a path as a name"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(SMALL, **change)  # type: ignore[arg-type]


def test_a_level_that_is_not_there_is_refused(pyramid: MaskPyramid) -> None:
    with pytest.raises(ConfigError, match=r"no level 4; levels: 0\.\.3"):
        pyramid.shape(4)
