"""Calibrate a bundle on a user's own slides or images, without labels: both models see everything once."""

import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from wsi_twostage.errors import ConfigError
from wsi_twostage.mask import MaskPyramid, Source
from wsi_twostage.models.bundle import SHIPPED, BundleSpec, copy_bundle, load_net, read_spec
from wsi_twostage.models.runner import choose_device
from wsi_twostage.pipeline import Settings, segment
from wsi_twostage.quality import Case, TileAnswers, calibrate_cases, fit_temperature, mean_threshold, tally
from wsi_twostage.refine import coarse_labels
from wsi_twostage.selection import ALL
from wsi_twostage.tiles import Tile
from wsi_twostage.training.data import Sample, image_files, read_rgb
from wsi_twostage.training.evaluate import answers, case_of_answer

DEFAULT_GAP = 0.005  # Dice to the reference


def calibrate_bundle(
    inputs: Sequence[Path],
    output: Path,
    *,
    model: Path | None = None,
    settings: Settings | None = None,
    progress: Callable[[str], None] = lambda name: None,
) -> BundleSpec:
    """Write a copy of a bundle with temperature, default threshold and curve from these slides or images.

    The default threshold is the highest that left them, on average, `DEFAULT_GAP` from the reference.

    Parameters
    ----------
    inputs
        Slides, or folders of images (PNG, JPEG) at the bundle's mpp; not both, for a promise about slides
        rests on slides.
    progress
        Called with the name of each slide or folder that is done.

    Raises
    ------
    ConfigError
        Nothing to calibrate on, slides and images together, or a bundle of several classes.
    SlideError, BundleError
        As `segment`.
    """
    path = SHIPPED if model is None else model
    spec, settings = read_spec(path), settings or Settings()
    if len(spec.classes) > 1:
        raise ConfigError(f"{spec.name}: only bundles of one class can be calibrated; it has {spec.classes}")
    folders = [entry for entry in inputs if entry.is_dir() and image_files(entry)]
    if folders and len(folders) < len(inputs):
        raise ConfigError("slides and folders of images were given together; calibrate on one kind")
    cases: list[Case] = []
    for entry in inputs:
        if folders:
            cases.extend(_of_images(entry, path, spec, settings))
        else:
            cases.append(_of_slide(entry, path, settings))
        progress(entry.name)
    if not any(case.histogram.sum() for case in cases):
        raise ConfigError("no tissue was found; there is nothing to calibrate on")
    temperature = round(fit_temperature(cases, spec.temperature), 4)
    unit = "images" if folders else "slides"
    found = calibrate_cases(
        cases, before=spec.temperature, temperature=temperature, uncertainty=settings.uncertainty, unit=unit
    )
    spec = replace(
        spec, temperature=temperature, threshold=mean_threshold(found, DEFAULT_GAP), calibration=found
    )
    copy_bundle(path, output, spec)
    return spec


def _of_slide(path: Path, model: Path, settings: Settings) -> Case:
    with tempfile.TemporaryDirectory() as folder:
        result = segment(path, Path(folder) / "all.zarr", bundle=model, rule=ALL, settings=settings)
        return case_of_store(path.name, result.store, read_spec(model))


def case_of_store(name: str, store: MaskPyramid, spec: BundleSpec) -> Case:
    """Of a result in which every tissue tile was refined."""
    source = store.read_source()
    return tally(
        name, [_of_tile(store, spec, tile) for tile in store.spec.tiles if source[tile] == Source.MODEL_2]
    )


def _of_tile(store: MaskPyramid, spec: BundleSpec, tile: Tile) -> TileAnswers:
    box = store.spec.tiles.box(tile)  # clipped to the slide
    whole = replace(box, height=store.spec.tile, width=store.spec.tile)
    first = coarse_labels(store, spec, whole, (tile,))[: box.height, : box.width]
    return TileAnswers(store.read_probability(box.coarser(spec.step))[0], first, store.read(box))


def _of_images(folder: Path, model: Path, spec: BundleSpec, settings: Settings) -> Iterable[Case]:
    device = torch.device(choose_device(settings.device))
    net = load_net(model).to(device)
    empty = torch.zeros(0, dtype=torch.uint8)
    samples = (Sample(path.name, read_rgb(path), empty) for path in image_files(folder))
    for answer in answers(net, samples, spec, device):
        yield case_of_answer(answer, spec)
