"""Which micrometres per pixel hold: those given, else those in the file, else an error; never a guess."""

import math
import xml.etree.ElementTree as ElementTree

from wsi_twostage.errors import NoScale, SlideError
from wsi_twostage.slide.contents import FoundMpp, Size

PLAUSIBLE = (0.05, 20.0)  # um per pixel; screens and scanners that write 72 or 96 dpi fall outside
MAX_ANISOTROPY = 0.02  # relative difference of x and y that is still called square

_UM_PER_UNIT = {"nm": 1e-3, "um": 1.0, "µm": 1.0, "μm": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6}
_UM_PER_UNIT |= {"pm": 1e-6, "Å": 1e-4, "dm": 1e5, "in": 25_400.0}
_UM_PER_UNIT |= {"picometer": 1e-6, "angstrom": 1e-4, "decimeter": 1e5, "inch": 25_400.0}
_UM_PER_UNIT |= {"nanometer": 1e-3, "micrometer": 1.0, "millimeter": 1e3, "centimeter": 1e4, "meter": 1e6}
_UM_PER_RESOLUTION_UNIT = {2: 25_400.0, 3: 10_000.0}  # TIFF: inch, centimetre; 1 means "no unit"


def choose_mpp(path: str, given: float | None, found: FoundMpp | None) -> tuple[float, str]:
    """Micrometres per pixel of level 0, and ``"given"`` or ``"file"``.

    Raises
    ------
    NoScale
        The file has none, or it is implausible, or pixels are not square.
    SlideError
        The given ones are implausible.
    """
    low, high = PLAUSIBLE
    remedy = "give them, e.g. --mpp 0.25"
    if given is not None:
        if not low <= given <= high:
            near = (
                f"; did you mean {given / 1000:g}, that is {given:g} nm?"
                if low <= given / 1000 <= high
                else ""
            )
            raise SlideError(f"{path}: --mpp {given:g} is outside {low:g}..{high:g} um per pixel{near}")
        return given, "given"
    if found is None:
        raise NoScale(f"{path}: no micrometres per pixel in the file; {remedy}")
    stated = f"{path}: {found.x:.4g} x {found.y:.4g} um per pixel ({found.origin})"
    if not (low <= found.x <= high and low <= found.y <= high):
        raise NoScale(f"{stated} are outside {low:g}..{high:g}; {remedy}")
    if abs(found.x / found.y - 1) > MAX_ANISOTROPY:
        raise NoScale(f"{stated}: pixels are not square; {remedy} if they are")
    return (found.x + found.y) / 2, "file"


def mpp_of_aperio(description: str) -> FoundMpp | None:
    """From ``... |MPP = 0.4990| ...`` of an ImageDescription."""
    for field in description.split("|"):
        key, _, value = field.partition("=")
        if key.strip() == "MPP" and (mpp := _positive(value)) is not None:
            return FoundMpp(mpp, mpp, "Aperio MPP")
    return None


def mpp_of_ome(xml: str, size: Size) -> FoundMpp | None:
    """From PhysicalSizeX and Y of the OME-XML image that has this size."""
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return None
    for pixels in root.iter():
        attributes = pixels.attrib
        if (attributes.get("SizeY"), attributes.get("SizeX")) != (str(size.height), str(size.width)):
            continue
        y, x = (
            _um(attributes.get(f"PhysicalSize{axis}", ""), attributes.get(f"PhysicalSize{axis}Unit", "µm"))
            for axis in "YX"
        )
        if y is not None and x is not None:
            return FoundMpp(y, x, "OME-XML PhysicalSize")
    return None


def mpp_of_resolution(y: float, x: float, unit: int) -> FoundMpp | None:
    """From a TIFF's YResolution, XResolution (pixels per unit) and ResolutionUnit."""
    um = _UM_PER_RESOLUTION_UNIT.get(unit)
    if um is None or not (y > 0 and x > 0):
        return None
    return FoundMpp(um / y, um / x, "TIFF resolution tags")


def mpp_of_axes(y: object, x: object, units: tuple[object, object]) -> FoundMpp | None:
    """From the scales of an OME-Zarr's axes and their units (NGFF 0.4 and 0.5, "axes" metadata)."""
    rows, cols = (_um(str(value), str(unit)) for value, unit in zip((y, x), units, strict=True))
    return None if rows is None or cols is None else FoundMpp(rows, cols, "OME-Zarr axes")


def mpp_of_text(y: str, x: str, origin: str) -> FoundMpp | None:
    """From two texts, as OpenSlide's properties have them."""
    rows, cols = _positive(y), _positive(x)
    return None if rows is None or cols is None else FoundMpp(rows, cols, origin)


def _um(value: str, unit: str) -> float | None:
    number, factor = _positive(value), _UM_PER_UNIT.get(unit)
    return None if number is None or factor is None else number * factor


def _positive(text: str) -> float | None:
    """The number in a text that others wrote, if it is one."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and number > 0 else None
