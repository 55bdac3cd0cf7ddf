"""The paper's four data sets in the folders they are downloaded as, and any folder of images and masks.

A data set is a list of files; pixels are read one item at a time. Lists are sorted, so that a split depends
on its seed alone.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wsi_twostage.errors import ConfigError, did_you_mean
from wsi_twostage.training.data import (
    NO_SLIDES,
    ORIGINALS,
    by_stem,
    image_files,
    read_labels,
    read_mask,
    read_rgb,
)

_NOT_IMAGES = "_superpixels"  # that ISIC puts beside its images
_NOT_PLACES = (".", "__MACOSX")  # how the folders begin that file managers, notebooks and archives leave
_BDD_VEHICLES = (13, 14, 15, 16)  # train ids: car, truck, bus, train
_KITTI_VEHICLES = (26, 27, 28, 29, 30, 31)  # label ids: car, truck, bus, caravan, trailer, train
_TRAINING = 0.7  # of a set that brings no lists of its own
_KITTI_SECOND = ("_11",)  # frames of the scene-flow download; only the first have labels


@dataclass(frozen=True, slots=True)
class Item:
    """One image and where its truth is."""

    name: str
    image: Path
    masks: tuple[Path, ...]
    """Their union is the truth."""
    ids: tuple[int, ...] = ()
    """Values that are foreground; none: all but 0."""
    empty: bool = False
    """The image may be without foreground."""

    def read(self) -> tuple[Tensor, Tensor]:
        """The image (3, H, W) and the truth (1, H, W), uint8, the truth 0 or 1.

        Raises
        ------
        ConfigError
            A file that is no image, a mask of another size than the image, or one without foreground in a
            set where that is a damaged file.
        """
        image = read_rgb(self.image)
        union = torch.zeros(image.shape[1:], dtype=torch.bool)
        for path in self.masks:
            mask = np.isin(read_labels(path), self.ids) if self.ids else read_mask(path)
            if mask.shape != union.shape:
                raise ConfigError(f"{path}: {mask.shape} px; its image has {tuple(union.shape)}")
            union |= torch.from_numpy(mask)
        if not self.empty and not union.any():
            raise ConfigError(f"{self.masks[0]}: an empty mask; each image of this set has some foreground")
        return image, union[None].to(torch.uint8)


@dataclass(frozen=True, slots=True)
class Parts:
    """What is trained on and what is tested on."""

    train: tuple[Item, ...]
    test: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class DataSet:
    """How one data set is laid out."""

    find: Callable[[Path], Sequence[Item] | Parts | None]
    """The items below a root, their parts if the set has its own split, or None: not laid out so."""
    expected: str
    turned: bool
    """Images have no up and down, so that training may turn them."""
    depth: int = 2
    """How many folders below the root it is looked for, if not there."""


def open_set(name: str, root: Path, *, seed: int = 123) -> Parts:
    """The named set below ``root``, split by its own lists or by ``seed``: 70 % for training.

    It is looked for at the root, then in the folders there, then in theirs. The split is
    ``RandomState(seed).choice`` without replacement, as in the published code, but of a sorted list, and cut
    at the nearest whole number.

    Raises
    ------
    ConfigError
        An unknown set, one that is in no folder or in several, or an image without a mask.
    """
    known = DATASETS.get(name)
    if known is None:
        raise ConfigError(
            f"data {name!r} is not known; known: {', '.join(DATASETS)}{did_you_mean(name, DATASETS)}"
        )
    answers = _nearest(known, root)
    if not answers:
        raise ConfigError(f"{root}: no {name} here; expected {known.expected}")
    if len(answers) > 1:
        raise ConfigError(f"{root}: {name} is in several folders; give one: {', '.join(map(str, answers))}")
    (found,) = answers.values()
    if isinstance(found, Parts):
        if not (found.train and found.test):
            raise ConfigError(f"{root}: {len(found.train)} images to train on, {len(found.test)} to test on")
        return found
    order = np.random.RandomState(seed).choice(len(found), len(found), replace=False)
    cut = round(_TRAINING * len(found))
    train, test = (tuple(found[i] for i in sorted(part)) for part in (order[:cut], order[cut:]))
    if not (train and test):
        raise ConfigError(f"{root}: only {len(found)} images; too few for training and testing")
    return Parts(train, test)


def ensure_readable(items: Sequence[Item], progress: Callable[[int], None] = lambda done: None) -> None:
    """Read every one, before hours are spent that need them; raises as `Item.read`."""
    for done, item in enumerate(items, 1):
        item.read()
        progress(done)


def _nearest(known: DataSet, root: Path) -> dict[Path, Sequence[Item] | Parts]:
    """What is found, by folder, at the first depth where anything is."""
    places = [root]
    for _ in range(known.depth + 1):
        if answers := {place: found for place in places if (found := known.find(place))}:
            return answers
        inner = (path for place in places for path in _places(place))
        places = [path for path in inner if os.access(path, os.R_OK | os.X_OK)]  # not lost+found
    return {}


def _images(folder: Path) -> list[Path]:
    """The images of a folder; whatever else lies there is none of ours."""
    return [
        path for path in image_files(folder, (*NO_SLIDES, *ORIGINALS)) if not path.stem.endswith(_NOT_IMAGES)
    ]


def _places(folder: Path) -> list[Path]:
    """The folders in a folder; whatever else lies there is none of ours."""
    return sorted(p for p in folder.glob("*") if p.is_dir() and not p.name.startswith(_NOT_PLACES))


def _pairs(
    images: Path,
    masks: Path,
    *,
    ids: tuple[int, ...] = (),
    empty: bool = False,
    suffix: str = "",
    skip: tuple[str, ...] = (),
) -> list[Item]:
    """Images and masks with equal stems; those of masks end in ``suffix``, those of no image in ``skip``."""
    truths = by_stem((path for path in _images(masks) if path.stem.endswith(suffix)), suffix=suffix)
    items = []
    for stem, path in by_stem(path for path in _images(images) if not path.stem.endswith(skip)).items():
        if stem not in truths:
            raise ConfigError(f"{path}: no mask; expected {masks / (stem + suffix)}.png")
        items.append(Item(stem, path, (truths.pop(stem),), ids, empty))
    if truths:
        raise ConfigError(f"{min(truths.values())}: a mask without an image in {images}")
    return items


def _first(root: Path, *folders: str) -> Path | None:
    """The first of these folders that exists."""
    return next((root / folder for folder in folders if (root / folder).is_dir()), None)


def _named(root: Path, name: str) -> Path:
    """The folder of this name, ``root`` or in it; in one of another name there is something else."""
    return root if root.absolute().name == name else root / name


def _bdd(root: Path) -> Parts | None:
    layouts = (
        ("images/10k", "labels/sem_seg/masks", "_train_id"),
        ("images/10k", "labels/sem_seg/masks", ""),
        ("seg/images", "seg/labels", "_train_id"),  # of the first release
        ("images", "labels", "_train_id"),  # in its seg
    )
    places = [(base / i, base / m, end) for base in (root / "bdd100k", root) for i, m, end in layouts]
    sample = _named(root, "bdd100k_sample")
    for images, masks, suffix in (*places, (sample / "images", sample / "semantic", "")):
        truths = _images(masks / "train")
        if (images / "train").is_dir() and any(path.stem.endswith(suffix) for path in truths):
            train, test = (
                tuple(_pairs(images / part, masks / part, ids=_BDD_VEHICLES, empty=True, suffix=suffix))
                for part in ("train", "val")
            )
            return Parts(train, test)
    return None


def _kitti(root: Path) -> list[Item] | None:
    for folder in ("kitti/semantics/training", "data_semantics/training", "training", "kitti_sample", "."):
        images, labels = root / folder / "image_2", root / folder / "semantic"
        if images.is_dir() and labels.is_dir():
            return _pairs(images, labels, ids=_KITTI_VEHICLES, empty=True, skip=_KITTI_SECOND)
    return None


def _bowl(root: Path) -> list[Item] | None:
    names = ("stage1/train", "stage1_train")  # of the published code, and of Kaggle's archive
    folder = _first(root, *(f"data-science-bowl-2018/{name}" for name in names), *names)
    if folder is None:
        if flat := _folder(_named(root, "bowl2018")):
            return flat
        if not any(
            (place / "masks").is_dir() and place.name in {path.stem for path in _images(place / "images")}
            for place in _places(root)
        ):
            return None
        folder = root
    items = []
    for place in _places(folder):
        if _first(place, "images", "masks") is None:
            continue
        images, masks = _images(place / "images"), _images(place / "masks")
        if len(images) != 1:
            raise ConfigError(f"{place / 'images'}: {len(images)} images; expected one")
        if not masks:
            raise ConfigError(f"{place / 'masks'}: no masks; expected one for each nucleus")
        items.append(Item(place.name, images[0], tuple(masks)))
    return items


def _ph2(root: Path) -> list[Item] | None:
    folder = _first(root, "PH2Dataset/PH2 Dataset images", "PH2 Dataset images")
    if folder is None and any(root.glob("*/*_Dermoscopic_Image")):
        folder = root
    if folder is None:
        return None
    items = []
    for place in _places(folder):
        name = place.name
        parts = (f"{name}_Dermoscopic_Image", f"{name}_lesion")
        if _first(place, *parts) is None:
            continue
        image, mask = (_images(place / part) for part in parts)
        if len(image) != 1 or len(mask) != 1:
            raise ConfigError(
                f"{place}: {len(image)} images in {parts[0]}, {len(mask)} in {parts[1]}; expected one in each"
            )
        items.append(Item(name, image[0], (mask[0],)))
    return items


def _isic(root: Path) -> list[Item] | None:
    years = (
        ("ISIC-2017_Training_Data", "ISIC-2017_Training_Part1_GroundTruth"),
        ("ISBI2016_ISIC_Part1_Training_Data", "ISBI2016_ISIC_Part1_Training_GroundTruth"),
    )
    found = [(root / i, root / m) for i, m in years if (root / i).is_dir() and (root / m).is_dir()]
    if len(found) > 1:
        names = " and ".join(images.name for images, _ in found)
        raise ConfigError(f"{root}: holds {names}, which are two sets; give a folder with one of them")
    if found:
        return _pairs(*found[0], suffix="_segmentation")
    return _folder(_named(root, "isic2017_98"))


def _folder(root: Path, *, empty: bool = False) -> list[Item] | None:
    if (root / "images").is_dir() and (root / "masks").is_dir():
        return _pairs(root / "images", root / "masks", empty=empty)
    return None


DATASETS: dict[str, DataSet] = {
    "bdd": DataSet(
        _bdd,
        "bdd100k/images/10k/{train,val}/*.jpg and bdd100k/labels/sem_seg/masks/{train,val}/*.png, "
        "or bdd100k/seg/{images,labels}/{train,val}",
        False,
    ),
    "kitti": DataSet(
        _kitti, "data_semantics/training/{image_2,semantic}/*.png, or kitti/semantics/training", False
    ),
    "bowl": DataSet(_bowl, "stage1_train/ID/{images,masks}/*.png, or bowl2018/{images,masks}", True),
    "ph2": DataSet(
        _ph2, "PH2Dataset/PH2 Dataset images/IMDxxx/{IMDxxx_Dermoscopic_Image,IMDxxx_lesion}/*.bmp", True
    ),
    "isic": DataSet(
        _isic, "ISIC-2017_Training_{Data,Part1_GroundTruth}, or isic2017_98/{images,masks}", True
    ),
    "folder": DataSet(partial(_folder, empty=True), "images/ and masks/ with equal names", True, depth=0),
}
