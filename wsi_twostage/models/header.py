"""What the file of a bundle says of itself; read without torch, which takes seconds to import."""

import hashlib
import json
from dataclasses import fields
from pathlib import Path

from safetensors import SafetensorError, safe_open

from wsi_twostage.errors import BundleError, ConfigError, similar_file
from wsi_twostage.models.spec import BundleSpec, Calibration, Contract, NetSpec

SHIPPED = Path(__file__).parent.parent / "weights" / "nuclei-he.safetensors"
KEY = "wsi_twostage"  # of the header in the file's metadata


def read_spec(path: Path) -> BundleSpec:
    """The header of a bundle, without its weights.

    Raises
    ------
    BundleError
        No such file, or not a bundle.
    """
    if not path.is_file():
        raise BundleError(
            f"{path}: no such model; give a .safetensors bundle, or none for the shipped one"
            f"{similar_file(path)}"
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
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise BundleError(f"{path}: a damaged bundle header ({error!r})") from error


def sha256_of(path: Path) -> str:
    """Of the whole file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
