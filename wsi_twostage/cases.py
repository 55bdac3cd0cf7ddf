"""Cases: what both models say of each slide or image that a calibration is given."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from wsi_twostage.batch import Entry, name_of
from wsi_twostage.errors import ConfigError, LostSlide, SlideError
from wsi_twostage.events import Listener
from wsi_twostage.kept_cases import KeptCases
from wsi_twostage.manifest import identity_of
from wsi_twostage.mask import MaskPyramid, Source
from wsi_twostage.models.bundle import ModelBundle, load_bundle, load_net
from wsi_twostage.models.header import read_spec
from wsi_twostage.models.onnx_net import onnx_device
from wsi_twostage.models.runner import choose_device
from wsi_twostage.models.spec import BundleSpec
from wsi_twostage.models.twostage import TwoStageNet
from wsi_twostage.pipeline import segment
from wsi_twostage.preparing import prepare
from wsi_twostage.quality import Case, TileAnswers, tally
from wsi_twostage.selection import ALL
from wsi_twostage.settings import Settings
from wsi_twostage.shards import coarse_labels
from wsi_twostage.tiles import Tile
from wsi_twostage.training.data import Sample, read_rgb
from wsi_twostage.training.evaluate import answers, case_of_answer


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An input that does not count."""

    why: str
    failed: bool = True


@dataclass(frozen=True, slots=True)
class Look:
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
        made_of = _key(identity_of(manifest).encode(), os.fsencode(manifest["slide"]["path"]))
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
        return self._once(_content(case), name_of(slide)) or case

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
            if (copy := self._once(_key(sample.image.numpy().data), path.name)) is not None:
                yield copy
            else:
                yield from (case_of_answer(answer, spec) for answer in answers(net, [sample], spec, there))

    def _once(self, content: str, name: str) -> LeftOut | None:
        """Why it does not count, if another of this content does."""
        if content in self.counted:
            first = self.counted[content]
            return LeftOut(f"a copy of {first}, and a promise counts each once", failed=False)
        self.counted[content] = name
        return None


def _content(case: Case) -> str:
    """The same for copies of a slide, and whatever Model 1's temperature: what Model 2 says of each tile.

    Where it says nothing of any, what Model 1 says, too.
    """
    second = case.overlap[:, 2]
    return _key(second.tobytes(), b"" if second.any() else case.histogram.tobytes())


def _key(*parts: bytes | memoryview) -> str:
    """16 hexadecimal digits."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()[:16]


def case_of_store(name: str, store: MaskPyramid, spec: BundleSpec) -> Case:
    """Of a result in which every tissue tile was refined."""
    source = store.read_source()
    tiles = (_of_tile(store, spec, tile) for tile in store.spec.tiles if source[tile] == Source.MODEL_2)
    return tally(name, tiles, step=spec.step)


def _of_tile(store: MaskPyramid, spec: BundleSpec, tile: Tile) -> TileAnswers:
    box = store.spec.tiles.box(tile)  # clipped to the slide
    first = coarse_labels(store, spec, box, (tile,))
    return TileAnswers(store.read_probability(box.coarser(spec.step))[0], first, store.read(box))
