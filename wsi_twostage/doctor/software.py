"""Packages against what the installation asks for, OpenSlide's library, and codecs really tried."""

import platform
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

import numpy as np
from numpy.typing import NDArray
from packaging.requirements import Requirement

from wsi_twostage.doctor.finding import Finding, note, ok, problem
from wsi_twostage.errors import one_line

NAME = "wsi-twostage"
_SHOWN = ("torch", "torchvision", "zarr", "dask", "distributed", "tifffile", "imagecodecs", "numpy")
_REINSTALL = "install this package again, in a new virtual environment"
_NOT_FOR_USE = ("test", "docs")

Image = NDArray[np.uint8]


def examine_packages() -> Iterator[Finding]:
    """Versions of what is needed, and what else could be installed."""
    system = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    yield ok("wsi-seg", f"{version(NAME)}, {system}")
    needed = [Requirement(text) for text in requires(NAME) or ()]
    core = [r for r in needed if r.marker is None or r.marker.evaluate({"extra": ""})]
    if wrong := [said for requirement in core if (said := _wrong(requirement))]:
        yield problem("packages", "; ".join(wrong), _REINSTALL)
    else:
        shown = ", ".join(f"{name} {version(name)}" for name in _SHOWN)
        yield ok("packages", shown)
    yield from _extras([r for r in needed if r not in core])


def _wrong(requirement: Requirement) -> str:
    """What is wrong with a package, if something is."""
    there = _version(requirement)
    if there is None:
        return f"{requirement.name} is not installed"
    if requirement.specifier.contains(there, prereleases=True):
        return ""
    return f"{requirement.name} is {there}, needed is {requirement.specifier}"


def _version(requirement: Requirement) -> str | None:
    try:
        return version(requirement.name)
    except PackageNotFoundError:
        return None


def _extras(optional: list[Requirement]) -> Iterator[Finding]:
    """About what is optional: it is no fault not to have it, but to have it too old is."""
    said = {True: list[str](), False: list[str]()}
    for requirement in optional:
        extra = str(requirement.marker).split("==")[-1].strip(" '\"")
        there = _version(requirement)
        if extra in _NOT_FOR_USE:
            continue
        if there is not None and (wrong := _wrong(requirement)):
            yield note("optional", wrong, f"pip install '{NAME}[{extra}]'")
        else:
            said[there is not None].append(f"{requirement.name} {there}" if there else f"{NAME}[{extra}]")
    lacking = ", ".join(dict.fromkeys(said[False]))  # an extra may be several packages
    parts = [", ".join(said[True]), f"not installed: {lacking}" if lacking else ""]
    if any(parts):
        yield ok("optional", "; ".join(filter(None, parts)))


def examine_openslide() -> Finding:
    """Whether the library, which is not Python, can be loaded."""
    try:
        import openslide
    except (ImportError, OSError) as error:
        return problem("OpenSlide", one_line(error), "pip install --force-reinstall openslide-bin")
    return ok(
        "OpenSlide", f"library {openslide.__library_version__}, openslide-python {openslide.__version__}"
    )


def examine_codecs() -> Finding:
    """Encode and decode a small picture with each codec that slides and results need."""
    failed, worked = list[str](), list[str]()
    try:
        codecs = _codecs()
    except (ImportError, OSError) as error:
        return problem("codecs", one_line(error), "pip install --force-reinstall imagecodecs")
    for name, (code, most_off) in codecs.items():
        try:
            off = _deviation(code)
        except (ImportError, RuntimeError, ValueError, TypeError) as error:
            failed.append(f"{name}: {one_line(error)}")
            continue
        if off > most_off:
            failed.append(f"{name}: pixels are off by {off:.0f}")
        else:
            worked.append(name)
    if failed:
        return problem("codecs", "; ".join(failed), "pip install --force-reinstall imagecodecs")
    return ok("codecs", f"{', '.join(worked)}: encoded and decoded")


def _deviation(code: Callable[[Image], Image]) -> float:
    """Mean absolute difference of a smooth picture after the way there and back, in grey levels."""
    rows, cols = np.mgrid[:64, :64]
    picture = np.stack([2 * rows, 2 * cols, 128 + rows - cols], axis=-1).astype(np.uint8)
    back = np.asarray(code(picture)).reshape(picture.shape)
    return float(np.abs(back.astype(np.int16) - picture).mean())


def _codecs() -> dict[str, tuple[Callable[[Image], Image], float]]:
    """There and back, and how far pixels may be off, in grey levels on average; JPEG loses some."""
    import imagecodecs

    ic: Any = imagecodecs

    def of_bytes(name: str) -> Callable[[Image], Image]:
        encode, decode = getattr(ic, f"{name}_encode"), getattr(ic, f"{name}_decode")
        return lambda image: np.frombuffer(decode(encode(image.tobytes())), np.uint8)

    return {
        "JPEG": (lambda image: ic.jpeg8_decode(ic.jpeg8_encode(image, level=95)), 4.0),
        "JPEG 2000": (lambda image: ic.jpeg2k_decode(ic.jpeg2k_encode(image, level=0)), 0.0),
        "LZW": (of_bytes("lzw"), 0.0),
        "deflate": (of_bytes("zlib"), 0.0),
        "zstd": (of_bytes("zstd"), 0.0),
    }
