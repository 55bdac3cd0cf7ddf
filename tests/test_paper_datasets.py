"""The paper's data sets: layouts, labels, splits, and what is said of a damaged one."""

import os
from pathlib import Path

import numpy as np
import pytest
from paper_trees import TREES, bdd, bowl, folder, kitti, ph2, scene, write
from PIL import Image

from wsi_twostage.errors import ConfigError
from wsi_twostage.paper.datasets import Item, open_set
from wsi_twostage.training.data import read_mask

SHARED = Path(os.environ.get("WSI_TWOSTAGE_DATA", Path(__file__).parents[2] / "shared" / "data"))


def number(item: Item) -> int:
    return int("".join(c for c in item.name.removesuffix("_10") if c.isdigit()))


@pytest.mark.parametrize("name", TREES)
def test_each_layout_gives_its_masks(name: str, tmp_path: Path) -> None:
    TREES[name](tmp_path)
    parts = open_set(name, tmp_path)
    assert (len(parts.train), len(parts.test)) == ((3, 2) if name == "bdd" else (7, 3))
    for item in (*parts.train, *parts.test):
        image, mask = item.read()
        pixels, truth = scene(number(item))
        assert image.shape == (3, 40, 60)
        np.testing.assert_array_equal(mask[0].numpy() > 0, truth)
        if name != "bdd":  # JPEG
            np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), pixels)


def test_the_split_is_that_of_the_published_code(tmp_path: Path) -> None:
    kitti(tmp_path)
    order = np.random.RandomState(5).choice(10, 10, replace=False)
    parts = open_set("kitti", tmp_path, seed=5)
    assert [number(i) for i in parts.train] == sorted(order[:7].tolist())
    assert open_set("kitti", tmp_path, seed=6) != parts


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bdd", "bdd100k/images/10k/.* or bdd100k/seg/"),
        ("kitti", "data_semantics/training/"),
        ("bowl", "stage1_train/ID/"),
        ("ph2", "PH2Dataset/PH2 Dataset images/"),
        ("isic", "ISIC-2017_Training_"),
        ("folder", "images/ and masks/"),
    ],
)
@pytest.mark.parametrize("place", [".", "missing"])
def test_a_missing_set_says_what_was_expected(name: str, expected: str, place: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"no {name} here; expected {expected}"):
        open_set(name, tmp_path / place)


@pytest.mark.parametrize(("name", "folder"), [("bowl", "bowl2018"), ("isic", "isic2017_98")])
def test_images_and_masks_in_a_folder_of_another_name_are_another_set(
    name: str, folder: str, tmp_path: Path
) -> None:
    TREES["folder"](tmp_path / "mine")
    with pytest.raises(ConfigError, match=f"no {name} here; expected "):
        open_set(name, tmp_path / "mine")
    place = (tmp_path / "mine").rename(tmp_path / folder)
    assert open_set(name, place) == open_set(name, tmp_path)


def test_an_unknown_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="known: bdd, kitti, bowl, ph2, isic, folder"):
        open_set("cityscapes", tmp_path)


def name_train_ids(labels: Path, *, colours: bool) -> None:
    """Masks named as in BDD's first release, with their coloured copies beside them or not."""
    for path in sorted(labels.glob("*/*.png")):
        ids = path.rename(path.with_name(f"{path.stem}_train_id.png"))
        if colours:
            ids.with_name(f"{path.stem}_train_color.png").write_bytes(ids.read_bytes())


def move(tree: str, root: Path, inner: str) -> Path:
    """The tree's inner folder alone, as if it had been unpacked there."""
    TREES[tree](root / "whole")
    return (root / "whole" / inner).rename(root / "alone")


@pytest.mark.parametrize(
    ("name", "inner"),
    [
        ("bdd", "bdd100k"),
        ("kitti", "kitti/semantics"),
        ("kitti", "kitti/semantics/training"),
        ("bowl", "data-science-bowl-2018"),
        ("bowl", "data-science-bowl-2018/stage1/train"),
        ("ph2", "PH2Dataset"),
        ("ph2", "PH2Dataset/PH2 Dataset images"),
    ],
)
def test_any_folder_on_the_way_will_do(name: str, inner: str, tmp_path: Path) -> None:
    alone = move(name, tmp_path, inner)
    assert len(open_set(name, alone).train) == (3 if name == "bdd" else 7)


@pytest.mark.parametrize(
    ("name", "inner", "place"),
    [
        ("bdd", "bdd100k", "a/b/bdd100k"),
        ("kitti", "kitti/semantics", "kitti/data_semantics"),
        ("kitti", "kitti/semantics", "kitti"),
        ("kitti", "kitti/semantics", "KITTI"),
        ("kitti", "kitti/semantics", "semantics"),
        ("bowl", "data-science-bowl-2018/stage1/train", "bowl/stage1_train"),
        ("bowl", "data-science-bowl-2018/stage1/train", "data-science-bowl-2018"),
        ("bowl", "data-science-bowl-2018/stage1/train", "data-science-bowl-2018/stage1_train"),
        ("bowl", "data-science-bowl-2018/stage1/train", "stage1_train/stage1_train"),
        ("ph2", "PH2Dataset", "ph2/PH2Dataset"),
        ("ph2", "PH2Dataset", "PH2Dataset/PH2Dataset"),
        ("ph2", "PH2Dataset/PH2 Dataset images", "PH2 Dataset images/PH2 Dataset images"),
    ],
)
def test_a_set_is_found_some_folders_below_the_root(
    name: str, inner: str, place: str, tmp_path: Path
) -> None:
    alone = move(name, tmp_path, inner)
    (tmp_path / "data" / place).parent.mkdir(parents=True)
    alone.rename(tmp_path / "data" / place)
    assert len(open_set(name, tmp_path / "data").train) == (3 if name == "bdd" else 7)


def test_a_set_in_two_folders_is_not_chosen_from(tmp_path: Path) -> None:
    ph2(tmp_path / "new")
    ph2(tmp_path / "old")
    with pytest.raises(ConfigError, match=r"ph2 is in several folders; give one: .*new, .*old$"):
        open_set("ph2", tmp_path)
    ph2(tmp_path)
    assert len(open_set("ph2", tmp_path).train) == 7


@pytest.mark.parametrize(
    ("name", "images", "masks"),
    [
        ("folder", "mine/images", "mine/masks"),  # at the root only
        ("bowl", "mine/images", "mine/masks"),
        ("bowl", "mine/1/images", "mine/1/masks"),  # one image, but not of the folder's name
        ("bdd", "mine/images/train", "mine/labels/train"),
        ("bdd", "mine/images/train", "mine/semantic/train"),
    ],
)
def test_another_set_below_the_root_is_not_taken(name: str, images: str, masks: str, tmp_path: Path) -> None:
    image, mask = scene(0)
    write(tmp_path / images / "0.png", image)
    write(tmp_path / masks / "0.png", mask)
    with pytest.raises(ConfigError, match=f"no {name} here; expected "):
        open_set(name, tmp_path)


@pytest.mark.parametrize("colours", [False, True])
@pytest.mark.parametrize("place", [".", "bdd100k", "bdd100k/seg"])
def test_the_first_release_of_bdd(place: str, colours: bool, tmp_path: Path) -> None:
    bdd(tmp_path)
    base = tmp_path / "bdd100k"
    (base / "seg").mkdir()
    (base / "images/10k").rename(base / "seg/images")
    (base / "labels/sem_seg/masks").rename(base / "seg/labels")
    name_train_ids(base / "seg/labels", colours=colours)
    assert len(open_set("bdd", tmp_path / place).test) == 2


def test_masks_of_bdd_named_as_in_the_first_release(tmp_path: Path) -> None:
    bdd(tmp_path)
    before = open_set("bdd", tmp_path)
    name_train_ids(tmp_path / "bdd100k/labels/sem_seg/masks", colours=True)
    after = open_set("bdd", tmp_path)
    assert [item.image for item in after.train] == [item.image for item in before.train]
    assert after.train[0].name == "0000"


def test_second_frames_of_kitti_have_no_labels(tmp_path: Path) -> None:
    kitti(tmp_path)
    before = open_set("kitti", tmp_path)
    write(tmp_path / "kitti/semantics/training/image_2/000003_11.png", scene(3)[0])
    assert open_set("kitti", tmp_path) == before


def test_bowl_as_kaggle_names_it(tmp_path: Path) -> None:
    bowl(tmp_path)
    base = tmp_path / "data-science-bowl-2018"
    (base / "stage1/train").rename(base / "stage1_train")
    assert len(open_set("bowl", tmp_path).train) == 7
    assert len(open_set("bowl", base).train) == 7


def test_a_folder_beside_bowl_is_none_of_its_images(tmp_path: Path) -> None:
    folder(tmp_path / "bowl2018")
    for name in ("one", "holiday"):
        write(tmp_path / f"holiday/images/{name}.png", scene(0)[0])
        assert len(open_set("bowl", tmp_path).train) == 7


def test_isic_as_downloaded(tmp_path: Path) -> None:
    folder(tmp_path)
    images, masks = (tmp_path / f"ISIC-2017_Training_{p}" for p in ("Data", "Part1_GroundTruth"))
    (tmp_path / "images").rename(images)
    (tmp_path / "masks").rename(masks)
    for i in range(10):
        (masks / f"{i}.png").rename(masks / f"{i}_segmentation.png")
        write(images / f"{i}_superpixels.png", scene(i)[0])
    assert len(open_set("isic", tmp_path).train) == 7


def test_isic_of_two_years_is_not_one_set(tmp_path: Path) -> None:
    for name in (
        "ISIC-2017_Training_Data",
        "ISIC-2017_Training_Part1_GroundTruth",
        "ISBI2016_ISIC_Part1_Training_Data",
        "ISBI2016_ISIC_Part1_Training_GroundTruth",
    ):
        (tmp_path / name).mkdir()
    with pytest.raises(ConfigError, match=r"ISIC-2017_\w+ and ISBI2016_\w+, which are two sets"):
        open_set("isic", tmp_path)


@pytest.mark.parametrize("name", list(TREES))
def test_names_may_end_in_capitals(name: str, tmp_path: Path) -> None:
    TREES[name](tmp_path)
    before = open_set(name, tmp_path)
    for path in [*tmp_path.rglob("*.png"), *tmp_path.rglob("*.jpg"), *tmp_path.rglob("*.bmp")]:
        path.rename(path.with_suffix(path.suffix.upper()))
    after = open_set(name, tmp_path)
    assert [item.name for item in after.train] == [item.name for item in before.train]


def test_nuclei_unpacked_where_they_are_may_end_in_capitals(tmp_path: Path) -> None:
    bowl(tmp_path / "there")
    for place in (tmp_path / "there/data-science-bowl-2018/stage1/train").iterdir():
        place.rename(tmp_path / place.name)
    for path in list(tmp_path.rglob("*.png")):
        path.rename(path.with_suffix(".PNG"))
    assert len(open_set("bowl", tmp_path).train) == 7


def test_a_missing_mask_is_named(tmp_path: Path) -> None:
    kitti(tmp_path)
    (tmp_path / "kitti/semantics/training/semantic/000003_10.png").unlink()
    with pytest.raises(ConfigError, match=r"image_2/000003_10\.png: no mask; expected .*000003_10\.png"):
        open_set("kitti", tmp_path)


def test_a_mask_without_an_image_is_named(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "images/3.png").unlink()
    with pytest.raises(ConfigError, match=r"3\.png: a mask without an image"):
        open_set("folder", tmp_path)


@pytest.mark.parametrize("part", ["images", "masks"])
def test_two_files_of_one_name_are_refused(part: str, tmp_path: Path) -> None:
    folder(tmp_path)
    first = tmp_path / part / "3.png"
    first.with_suffix(".tif").write_bytes(first.read_bytes())
    with pytest.raises(ConfigError, match=r"3\.tif: a second file of this name; the first is .*3\.png"):
        open_set("folder", tmp_path)


@pytest.mark.parametrize("stray", ["__MACOSX", ".ipynb_checkpoints", "@eaDir/0.png", "New folder"])
@pytest.mark.parametrize(
    ("name", "inner"),
    [("bowl", "data-science-bowl-2018/stage1/train"), ("ph2", "PH2Dataset/PH2 Dataset images")],
)
def test_a_stray_folder_is_none_of_the_images(name: str, inner: str, stray: str, tmp_path: Path) -> None:
    TREES[name](tmp_path)
    (tmp_path / inner / stray).mkdir(parents=True)
    assert len(open_set(name, tmp_path).train) == 7


def test_a_nucleus_folder_without_masks_is_named(tmp_path: Path) -> None:
    bowl(tmp_path)
    for path in (tmp_path / f"data-science-bowl-2018/stage1/train/{4:064x}/masks").iterdir():
        path.unlink()
    with pytest.raises(ConfigError, match="masks: no masks"):
        open_set("bowl", tmp_path)


def test_a_missing_lesion_is_named(tmp_path: Path) -> None:
    ph2(tmp_path)
    (tmp_path / "PH2Dataset/PH2 Dataset images/IMD002/IMD002_lesion/IMD002_lesion.bmp").unlink()
    with pytest.raises(ConfigError, match=r"IMD002: 1 images in IMD002_Dermoscopic_Image, 0 in"):
        open_set("ph2", tmp_path)


def test_an_empty_lesion_is_an_error_and_a_street_without_cars_is_none(tmp_path: Path) -> None:
    ph2(tmp_path)
    kitti(tmp_path)
    black = np.zeros((40, 60), np.bool_)
    write(tmp_path / "PH2Dataset/PH2 Dataset images/IMD002/IMD002_lesion/IMD002_lesion.bmp", black)
    parts = open_set("ph2", tmp_path)
    damaged = next(i for i in (*parts.train, *parts.test) if i.name == "IMD002")
    with pytest.raises(ConfigError, match="an empty mask"):
        damaged.read()
    write(tmp_path / "kitti/semantics/training/semantic/000002_10.png", black.astype(np.uint8))
    parts = open_set("kitti", tmp_path)
    street = next(i for i in (*parts.train, *parts.test) if i.name == "000002_10")
    assert street.read()[1].sum() == 0


def test_a_mask_of_another_size_is_an_error(tmp_path: Path) -> None:
    folder(tmp_path)
    write(tmp_path / "masks/3.png", np.full((9, 9), 255, np.uint8))
    parts = open_set("folder", tmp_path)
    item = next(i for i in (*parts.train, *parts.test) if i.name == "3")
    with pytest.raises(ConfigError, match=r"\(9, 9\) px; its image has \(40, 60\)"):
        item.read()


def test_a_file_that_is_no_image_is_an_error(tmp_path: Path) -> None:
    bdd(tmp_path)
    (tmp_path / "bdd100k/images/10k/train/0001.jpg").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match=r"0001\.jpg: not an image"):
        open_set("bdd", tmp_path).train[1].read()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "I;16"])
def test_a_mask_in_any_kind_of_file(mode: str, tmp_path: Path) -> None:
    """The published code reads 1-bit, RGB and RGBA masks as empty."""
    truth = scene(1)[1]
    image = Image.fromarray(np.where(truth, 255, 0).astype(np.uint8))
    path = tmp_path / "mask.png"
    if mode == "I;16":
        Image.fromarray(np.where(truth, 40000, 0).astype(np.uint16)).save(path)
    else:
        image.convert(mode).save(path)
    np.testing.assert_array_equal(read_mask(path), truth)


@pytest.mark.parametrize(
    ("name", "counts"), [("bdd", (16, 8)), ("kitti", (8, 3)), ("bowl", (469, 201)), ("isic", (69, 29))]
)
def test_the_shared_sets_open(name: str, counts: tuple[int, int]) -> None:
    if not SHARED.is_dir():
        pytest.skip("no shared data here")
    parts = open_set(name, SHARED)
    assert (len(parts.train), len(parts.test)) == counts
    image, mask = parts.test[0].read()
    assert image.shape[1:] == mask.shape[1:]
