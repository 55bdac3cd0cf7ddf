"""Calibrate a bundle on a user's own slides or images, without labels: both models see everything once."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

import torch

from wsi_twostage.batch import Entry, expand, name_of, slides_in
from wsi_twostage.drafts import ensure_new, ensure_writable
from wsi_twostage.errors import ConfigError, LostSlide, NoCases, SlideError
from wsi_twostage.events import Listener, ignore
from wsi_twostage.fine import coarse_labels
from wsi_twostage.kept_cases import KeptCases
from wsi_twostage.manifest import identity_of
from wsi_twostage.mask import MaskPyramid, Source
from wsi_twostage.mask.reading import read_labels, read_probability, read_source
from wsi_twostage.models.bundle import ModelBundle, copy_bundle, load_bundle, load_net
from wsi_twostage.models.header import locate, read_spec
from wsi_twostage.models.onnx_net import onnx_device
from wsi_twostage.models.runner import choose_device
from wsi_twostage.models.spec import BundleSpec
from wsi_twostage.models.twostage import TwoStageNet
from wsi_twostage.pipeline import segment
from wsi_twostage.preparing import prepare
from wsi_twostage.quality import (
    Case,
    TileAnswers,
    calibrate_cases,
    fit_temperature,
    mean_threshold,
    tally,
)
from wsi_twostage.selection import ALL
from wsi_twostage.settings import Settings
from wsi_twostage.tiles import Tile
from wsi_twostage.training.data import Sample, image_files, read_rgb
from wsi_twostage.training.evaluate import answers, case_of_answer

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


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An input that does not count."""

    why: str
    failed: bool = True


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
    look = _Look(settings, kept, listener)
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

    with tempfile.TemporaryDirectory() as place, nullcontext() if images else kept.held():
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
        unit = "images" if images else "slides"
        promise = calibrate_cases(cases, unit=unit, uncertainty=settings.uncertainty)
        spec = replace(spec, threshold=mean_threshold(promise, DEFAULT_GAP), calibration=promise)
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


@dataclass(frozen=True, slots=True)
class _Look:
    """At inputs, each content of which counts once."""

    settings: Settings
    kept: KeptCases
    listener: Listener
    counted: dict[str, str] = field(default_factory=dict)
    """Names by content."""

    def slides(self, entries: Sequence[Entry], model: Path) -> Iterator[Case | LeftOut]:
        """Both models on each of them."""
        for entry in entries:
            try:
                settings = entry.settings(self.settings)
            except ConfigError as error:  # of the tissue that a list names
                yield LeftOut(str(error))
                continue
            try:
                yield self._slide(entry.slide, model, settings)
            except LostSlide:
                raise
            except SlideError as error:
                yield LeftOut(str(error))

    def _slide(self, slide: str, model: Path, settings: Settings) -> Case | LeftOut:
        ready = prepare(slide, model, settings)
        manifest = ready.manifest(settings)
        content, made_of = manifest["slide"]["fingerprint"], identity_of(manifest)
        if content in self.counted:
            return self._copy(content)
        case = self.kept.read(made_of)
        if case is None:
            place = self.kept.store_of(made_of)
            result = segment(
                ready.slide, place, bundle=model, rule=ALL, settings=settings, listener=self.listener
            )
            case = case_of_store(name_of(slide), result.store, ready.spec)
            if result.counts.failed and not len(case.histogram):
                raise SlideError(f"{slide}: none of its {result.counts.tissue} tissue tiles could be read")
            self.kept.keep(made_of, case)
        if not len(case.histogram):
            return LeftOut("no tissue", failed=False)
        self.counted[content] = name_of(slide)
        return case

    def images(self, entries: Sequence[Entry], model: Path) -> Iterator[Case | LeftOut]:
        """Both models on each of them, as a whole."""
        spec, device = read_spec(model), self.settings.device
        if spec.contract is not None:  # images reach ONNX Runtime from the CPU
            net: ModelBundle | TwoStageNet = load_bundle(model, device=onnx_device(device))
            there = torch.device("cpu")
        else:
            there = torch.device(choose_device(device))
            net = load_net(model).to(there)
        unlabelled = torch.zeros(0, dtype=torch.uint8)
        for path in (Path(entry.slide) for entry in entries):
            try:
                sample = Sample(path.name, read_rgb(path), unlabelled)
            except ConfigError as error:
                yield LeftOut(str(error))
                continue
            content = hashlib.sha256(sample.image.numpy().data).hexdigest()
            if content in self.counted:
                yield self._copy(content)
                continue
            self.counted[content] = path.name
            yield from (case_of_answer(answer, spec) for answer in answers(net, [sample], spec, there))

    def _copy(self, content: str) -> LeftOut:
        return LeftOut(f"a copy of {self.counted[content]}, and a promise counts each once", failed=False)


def case_of_store(name: str, store: MaskPyramid, spec: BundleSpec) -> Case:
    """Of a result in which every tissue tile was refined."""
    source = read_source(store)
    tiles = (_of_tile(store, spec, tile) for tile in store.spec.tiles if source[tile] == Source.MODEL_2)
    return tally(name, tiles, step=spec.step)


def _of_tile(store: MaskPyramid, spec: BundleSpec, tile: Tile) -> TileAnswers:
    box = store.spec.tiles.box(tile)  # clipped to the slide
    first = coarse_labels(store, spec, box, (tile,))
    return TileAnswers(read_probability(store, box.coarser(spec.step))[0], first, read_labels(store, box))
