"""What the file of a bundle says of itself; read without torch, which takes seconds to import."""

import hashlib
import json
import os
from dataclasses import fields
from pathlib import Path

from safetensors import SafetensorError, safe_open

from wsi_twostage.errors import BundleError, ConfigError, did_you_mean, similar_file
from wsi_twostage.models.spec import BundleSpec, Calibration, Contract, NetSpec

WEIGHTS = Path(__file__).parent.parent / "weights"
SHIPPED = WEIGHTS / "nuclei-he.safetensors"  # for who names none
KEY = "wsi_twostage"  # of the header in the file's metadata


def shipped() -> dict[str, Path]:
    """The bundles that ship in the package, by name."""
    return {path.stem: path for path in sorted(WEIGHTS.glob("*.safetensors"))}


def locate(bundle: str | os.PathLike[str] | None = None) -> Path:
    """The file of a bundle: the one given, or the shipped one of this name; None is the default one.

    Whether there is such a file, `read_spec` says.
    """
    if bundle is None:
        return SHIPPED
    path = Path(bundle)
    return path if os.path.isfile(path) else shipped().get(os.fspath(bundle), path)


def find_bundle(path: str, sha256: str) -> Path | None:
    """Where the bundle with this digest is: where it was, or in the package, which lies elsewhere here."""
    for place in (Path(path), *shipped().values()):
        try:
            if place.is_file() and sha256_of(place) == sha256:
                return place
        except OSError:
            continue
    return None


def read_spec(path: Path) -> BundleSpec:
    """The header of a bundle, without its weights.

    Raises
    ------
    BundleError
        No such file, or not a bundle.
    """
    if not os.path.isfile(path):
        names = shipped()
        raise BundleError(
            f"{path}: no such model; give a .safetensors bundle, or a shipped one's name: {', '.join(names)}"
            f"{similar_file(path) or did_you_mean(path, names)}"
        )
    try:
        with safe_open(path, "np") as file:
            header = (file.metadata() or {}).get(KEY)
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{path}: not a safetensors file ({error})") from error
    if header is None:
        raise BundleError(f"{path}: a safetensors file, but not a wsi_twostage bundle")
    try:
        stored = json.loads(header)
        known = {f.name for f in fields(BundleSpec)}
        if unknown := sorted(set(stored) - known):
            raise BundleError(f"{path}: made by a newer version (unknown field {unknown[0]!r})")
        for name in ("coarse", "fine", "context_net"):
            if net := stored.get(name):
                stored[name] = NetSpec(tuple(net["widths"]), tuple(net["depths"]), net["scale"])
        if told := stored.get("contract"):
            stored["contract"] = Contract(**told | {key: tuple(told[key]) for key in ("mean", "std")})
        if found := stored.get("calibration"):
            for name in ("threshold", "gap", "refined"):
                found[name] = tuple(found[name])
            stored["calibration"] = Calibration(**found)
        for name in ("classes", "decisions"):
            stored[name] = tuple(stored[name])
        stored["colours"] = tuple((r, g, b) for r, g, b in stored["colours"])
        return BundleSpec(**stored)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, ConfigError) as error:
        raise BundleError(f"{path}: a damaged bundle header ({error!r})") from error


def sha256_of(path: Path) -> str:
    """Of the whole file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
