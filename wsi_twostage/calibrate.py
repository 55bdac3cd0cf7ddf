"""Calibrate a bundle on a user's own slides or images, without labels: both models see everything once."""

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path

import torch

from wsi_twostage.batch import Entry, expand, name_of, slides_in
from wsi_twostage.cases import LeftOut, Look
from wsi_twostage.drafts import ensure_new, ensure_writable
from wsi_twostage.errors import ConfigError, NoCases
from wsi_twostage.events import Listener, ignore
from wsi_twostage.kept_cases import KeptCases
from wsi_twostage.models.bundle import copy_bundle
from wsi_twostage.models.header import locate, read_spec
from wsi_twostage.models.spec import BundleSpec
from wsi_twostage.quality import Case, Way, calibrate_cases, fit_temperature, mean_threshold, way_of
from wsi_twostage.settings import Settings
from wsi_twostage.training.data import NO_SLIDES, image_files

DEFAULT_GAP = 0.005  # Dice to the reference
LEAST = 0.0001  # probability from which Model 1's pixels may count as foreground
WARM = 8.0  # times the temperature while it is fitted: in 8 bits a network that is too sure says 0 or 1 alone
FOR_TEMPERATURE = 5  # every fifth input fits the temperature and no promise rests on it


@dataclass(frozen=True, slots=True)
class Seen:
    """How far a calibration is."""

    inputs: int
    """Done by now, of ``total``."""
    total: int
    name: str = ""
    """Of the last one."""
    left_out: str = ""
    """Why it does not count, if it does not."""
    failed: bool = False
    """It could not be read."""


def calibrate_bundle(
    inputs: Sequence[str | os.PathLike[str]],
    output: Path,
    *,
    model: Path | None = None,
    settings: Settings | None = None,
    progress: Callable[[Seen], None] = lambda seen: None,
    listener: Listener = ignore,
) -> BundleSpec:
    """Write a copy of a bundle with temperature, default threshold and curve from these slides or images.

    From five inputs on, every fifth one fits the temperature, and the promise rests on the others, as it
    must: on cases that had no part in the score. The default threshold is the highest that left these, on
    average, `DEFAULT_GAP` from the reference.

    A call that was interrupted on slides goes on, when it is made again, with what it left in the folder
    beside ``output`` that ends in ``.cases``.

    Parameters
    ----------
    inputs
        Slides, as `batch.entries` takes them; or folders of images (PNG, JPEG) at the bundle's mpp. Not both,
        for a promise about slides rests on slides. What cannot be read, has no tissue or is a copy of one
        that counts is left out; of a slide that can be read in part the rest counts.
    progress
        Called at the beginning, and after each input.
    listener
        Hears what the run on each slide says.

    Raises
    ------
    ConfigError
        An input twice, slides and images together, or a bundle of several classes.
    NoCases
        Of all inputs none was left.
    BundleError
        Not a bundle, or a network that gives no numbers.
    LostSlide
        A slide went away, or was replaced, while it was seen; the same call goes on.
    StoreError
        Something is at ``output``, or another calibration is at work on it.
    WriteError
        ``output`` cannot be written; known before the first input, or the disk filled up.
    """
    ensure_new(output)
    path = locate(model)
    spec, settings = read_spec(path), settings or Settings()
    if len(spec.classes) > 1:
        raise ConfigError(f"{spec.name}: only bundles of one class can be calibrated; it has {spec.classes}")
    found, images = _inputs([os.fspath(given) for given in inputs], settings)
    ensure_writable(output)
    kept, done, failed = KeptCases(output.with_name(f"{output.name}.cases")), count(1), False
    look = Look(settings, kept, listener)
    progress(Seen(0, len(found)))

    def see(some: Sequence[Entry], bundle: Path) -> list[Case]:
        """Whatever of these can be used."""
        nonlocal failed
        used = []
        for entry, case in zip(some, (look.images if images else look.slides)(some, bundle), strict=True):
            out = case if isinstance(case, LeftOut) else LeftOut("", failed=False)
            if isinstance(case, Case):
                used.append(case)
            failed |= out.failed
            progress(Seen(next(done), len(found), name_of(entry.slide), out.why, out.failed))
        return used

    with tempfile.TemporaryDirectory() as place, kept.held():
        draft = Path(place) / "draft.safetensors"
        first = found[::FOR_TEMPERATURE] if len(found) >= FOR_TEMPERATURE else []
        if first:
            warm = _warmer(spec, WARM * spec.temperature)
            copy_bundle(path, draft, replace(warm, calibration=None))
            if (fitted := fit_temperature(see(first, draft), warm.temperature)) is not None:
                spec = _warmer(spec, round(fitted, 4))
        copy_bundle(path, draft, replace(spec, calibration=None))
        cases = see([entry for entry in found if entry not in set(first)], draft)
        if not cases:
            if not failed:  # else what was seen may be of use once the others can be read
                kept.remove()
            raise NoCases("nothing to calibrate on: no tissue was found, or no input could be read")
        patches = images or any(Path(entry.slide).suffix.lower() in NO_SLIDES for entry in found)
        unit = "images" if patches else "slides"  # of which one slide may have given many
        way = _way(found, settings, images=images)
        promise = calibrate_cases(cases, unit=unit, uncertainty=settings.uncertainty, way=way)
        default = mean_threshold(calibrate_cases(cases, unit=unit), DEFAULT_GAP)  # which is of entropy
        spec = replace(spec, threshold=default, calibration=promise)
        ensure_new(output)  # again: it takes long
        copy_bundle(path, output, spec)
        kept.remove()
    return spec


def _inputs(inputs: Sequence[str], settings: Settings) -> tuple[list[Entry], bool]:
    """Slides; or images, and True."""
    paths = [Path(given) for given in inputs]
    if inner := [path for path in paths if (path / "images").is_dir()]:
        raise ConfigError(f"{inner[0]}: a data set; give the folder of its images, {inner[0] / 'images'}")
    folders = [(path, images) for path in paths if path.is_dir() and (images := image_files(path))]
    if folders and (len(folders) < len(paths) or settings.mpp is not None):
        raise ConfigError("folders of images go without slides and without --mpp; calibrate on one kind")
    for folder, images in folders:
        if others := [slide for slide in slides_in(folder) if Path(slide) not in images]:
            raise ConfigError(
                f"{folder}: {len(images)} PNG or JPEG images beside {len(others)} slides, such as "
                f"{name_of(others[0])}; give a folder of one kind, or the slides themselves"
            )
    entries = [Entry(str(image), Path()) for _, images in folders for image in images]
    anywhere = Path(os.path.abspath(os.sep))  # no results are kept
    found = entries or [entry for given in inputs for entry in expand(given, anywhere)]
    if len({os.path.realpath(entry.slide) for entry in found}) < len(found):
        raise ConfigError("an input was given twice; a promise counts each once")
    return found, bool(folders)


def _way(found: Sequence[Entry], settings: Settings, *, images: bool) -> Way:
    """How the inputs were seen, where they were seen one way."""
    if images:  # as a whole, by the networks themselves
        return Way(precision="fp32")
    common = asdict(settings)
    ways = {way_of({**common, "tissue": entry.tissue or settings.tissue}) for entry in found}
    return ways.pop() if len(ways) == 1 else Way(precision=settings.precision)


def _warmer(spec: BundleSpec, temperature: float) -> BundleSpec:
    """Another temperature, and the same mask of Model 1: its cut moves along.

    The card's curve goes, if there is one: its thresholds were of the temperature before.
    """
    if temperature == spec.temperature:
        return spec
    cut = torch.tensor(spec.decisions[0]).logit() * spec.temperature / temperature
    return replace(
        spec,
        temperature=temperature,
        decisions=(min(max(round(float(cut.sigmoid()), 4), LEAST), 1 - LEAST), spec.decisions[1]),
        card={key: value for key, value in spec.card.items() if key != "curve"},
    )
