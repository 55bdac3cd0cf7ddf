"""Other programs open our stores, and see the same pixels, colours and scales."""

import hashlib
import json
import subprocess
import urllib.error
import urllib.request
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import needs_chromium
from conftest import small_bundle
from numpy.typing import NDArray
from slides import pyramid, texture, write_slide
from viv_page import HERE, build, needs_viv, picture, served, webgl

from wsi_twostage import Fraction, MaskPyramid, Settings, segment
from wsi_twostage.tiles import Box


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> MaskPyramid:
    """Two classes, more than one shard; the slide is 2300 x 3000 px."""
    folder = tmp_path_factory.mktemp("made")
    slide = write_slide(folder / "slide.tiff", pyramid(texture(2300, 3000), 2))
    settings = Settings(tissue="none", workers=2)
    return segment(
        slide, folder / "o.zarr", bundle=small_bundle(classes=2), rule=Fraction(0.05), settings=settings
    ).store


def level(store: MaskPyramid, index: int) -> NDArray[np.uint8]:
    return store.read(Box(0, 0, *store.shape(index)), index)


def nodes_of(path: Path) -> list[Any]:
    """What ome-zarr-py finds: the image, the group of labels, the labels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from ome_zarr.io import parse_url
        from ome_zarr.reader import Reader

        location = parse_url(path)
        assert location is not None
        return list(Reader(location)())


def test_ome_zarr_py_finds_the_image_and_the_labels(store: MaskPyramid) -> None:
    nodes = nodes_of(store.path)
    assert [str(node.zarr.basename()) for node in nodes] == ["o.zarr", "labels", "segmentation"]
    image, _, labels = nodes
    assert [array.shape for array in labels.data] == [store.shape(i) for i in range(store.levels)]
    assert len(image.data) == store.levels
    for index, array in enumerate(labels.data):
        assert np.array_equal(array.compute(), level(store, index))
    assert np.array_equal(np.moveaxis(image.data[0].compute(), 0, -1), store.read_overview())


def test_ome_zarr_py_finds_colours_names_and_scales(store: MaskPyramid) -> None:
    image, _, labels = nodes_of(store.path)
    spec = store.spec
    for label, (name, colour) in enumerate(zip(spec.classes, spec.colours, strict=True), 1):
        assert labels.metadata["color"][label] == pytest.approx([*(np.array(colour) / 255), 1])
        assert labels.metadata["properties"][label] == {"class": name}
    for index in range(store.levels):
        scale, shift = labels.metadata["coordinateTransformations"][index]
        assert scale["scale"] == pytest.approx([spec.mpp * 2**index] * 2)
        assert shift["translation"] == pytest.approx([spec.mpp * (2**index - 1) / 2] * 2)
    assert image.metadata["axes"][1:] == labels.metadata["axes"]
    assert {axis["unit"] for axis in labels.metadata["axes"]} == {"micrometer"}


def test_the_server_of_the_examples_sends_parts_of_files(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(range(100)))
    with served(tmp_path) as address:

        def part(wanted: str) -> tuple[int, bytes]:
            request = urllib.request.Request(f"{address}/file", headers={"Range": wanted})
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:
                    return answer.status, answer.read()
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, b""

        assert part("bytes=10-19") == (206, bytes(range(10, 20)))
        assert part("bytes=90-") == (206, bytes(range(90, 100)))
        assert part("bytes=90-500") == (206, bytes(range(90, 100)))
        assert part("bytes=-7") == (206, bytes(range(93, 100)))
        assert part("bytes=100-")[0] == 416
        evil = urllib.request.Request(f"{address}/file", headers={"Host": "evil.example:8000"})
        with pytest.raises(urllib.error.HTTPError, match="403"):  # a name that was made to point here
            urllib.request.urlopen(evil, timeout=10)


@needs_viv
def test_zarrita_and_viv_read_what_we_read(store: MaskPyramid) -> None:
    with served(store.path.parent) as address:
        command = ["node", HERE / "read.mjs", f"{address}/{store.path.name}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert len(seen["labels"]["levels"]) == len(seen["image"]["levels"]) == store.levels
    for index, found in enumerate(seen["labels"]["levels"]):
        assert found["shape"] == list(store.shape(index))
        assert found["sha256"] == hashlib.sha256(level(store, index).tobytes()).hexdigest()
    for index, found in enumerate(seen["image"]["levels"]):
        own = np.moveaxis(store.read_overview(level=index), -1, 0)
        assert found["shape"] == list(own.shape)
        assert found["channels"] == [hashlib.sha256(one.tobytes()).hexdigest() for one in own]
    assert seen["image"]["axes"] == ["c", "y", "x"]
    colours = {one["label-value"]: tuple(one["rgba"][:3]) for one in seen["labels"]["colours"]}
    assert colours == dict(enumerate(store.spec.colours, 1))


@needs_viv
@needs_chromium
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # threads of the browser's driver end when they like
def test_viv_draws_the_overview_and_the_labels_over_it(store: MaskPyramid, tmp_path: Path) -> None:
    build(tmp_path)
    (tmp_path / "store.zarr").symlink_to(store.path)
    with served(tmp_path) as address, webgl() as driver:
        alone, both = (
            np.asarray(picture(driver, address, "store.zarr", show=show)).astype(np.int16)
            for show in ("image", "both")
        )
    height, width = alone.shape[:2]
    middle = alone[height // 4 : -height // 4, width // 4 : -width // 4]
    assert np.abs(middle.mean((0, 1)) - store.read_overview().mean((0, 1))).max() < 6
    changed = np.abs(both - alone).max(-1) > 8
    inside = changed[height // 4 : -height // 4, width // 4 : -width // 4].mean()
    labelled = float((level(store, store.levels - 1) > 0).mean())
    assert inside == pytest.approx(labelled, abs=0.15)
