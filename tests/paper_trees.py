"""Small data sets in the folders they are downloaded as."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def write(path: Path, array: NDArray[np.generic]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def scene(i: int, height: int = 40, width: int = 60) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A bright rectangle on a dark, noisy ground, and where it is."""
    generator = np.random.default_rng(i)
    image = generator.integers(0, 60, (height, width, 3)).astype(np.uint8)
    mask = np.zeros((height, width), np.bool_)
    top, left = generator.integers(0, height // 2, 2)
    mask[top : top + height // 3, left : left + width // 3] = True
    image[mask] += 150
    return image, mask


def bdd(root: Path) -> None:
    for part, count in (("train", 3), ("val", 2)):
        for i in range(count):
            image, mask = scene(i)
            write(root / "bdd100k/images/10k" / part / f"{i:04}.jpg", image)
            labels = np.where(mask, 14, 255).astype(np.uint8)  # a truck, and nothing known
            labels[0, 0] = 18  # a bicycle is no vehicle
            write(root / "bdd100k/labels/sem_seg/masks" / part / f"{i:04}.png", labels)


def kitti(root: Path) -> None:
    for i in range(10):
        image, mask = scene(i)
        labels = np.where(mask, 26 + i % 6, 7).astype(np.uint8)
        labels[0, 0] = 32  # a motorcycle is none either
        write(root / f"kitti/semantics/training/image_2/{i:06}_10.png", image)
        write(root / f"kitti/semantics/training/semantic/{i:06}_10.png", labels)


def bowl(root: Path) -> None:
    for i in range(10):
        image, mask = scene(i)
        place = root / f"data-science-bowl-2018/stage1/train/{i:064x}"
        rgba = np.dstack([image, np.full(mask.shape, 255, np.uint8)])
        write(place / f"images/{i:064x}.png", rgba)
        half = np.arange(mask.shape[1]) < 20
        for name, part in (("a", mask & half), ("b", mask & ~half)):
            write(place / f"masks/{name}.png", np.where(part, 255, 0).astype(np.uint8))


def ph2(root: Path) -> None:
    base = root / "PH2Dataset/PH2 Dataset images"
    for i in range(10):
        image, mask = scene(i)
        name = f"IMD{i:03}"
        write(base / name / f"{name}_Dermoscopic_Image" / f"{name}.bmp", image)
        write(base / name / f"{name}_lesion" / f"{name}_lesion.bmp", mask)  # 1 bit
    (base / "Thumbs.db").write_bytes(b"no folder")


def folder(root: Path) -> None:
    for i in range(10):
        image, mask = scene(i)
        write(root / f"images/{i}.png", image)
        write(root / f"masks/{i}.png", np.where(mask, 255, 0).astype(np.uint8))


TREES: dict[str, Callable[[Path], None]] = {
    "bdd": bdd,
    "kitti": kitti,
    "bowl": bowl,
    "ph2": ph2,
    "folder": folder,
}
