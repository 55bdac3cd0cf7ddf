"""What should make a reader of a result careful, a sentence each."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version

from wsi_twostage.report.facts import Facts
from wsi_twostage.report.statement import FEW, shown_path
from wsi_twostage.report.words import percent, tiles
from wsi_twostage.selection import is_timed

ENLARGED = 1.1
"""A mask finer than its slide by more than this was made from enlarged pixels."""


@dataclass(frozen=True, slots=True)
class Caution:
    """A sentence, and how much it matters."""

    grave: bool
    """Whether the mask is not what it should be; else a thing to know."""
    text: str
    short: str
    """A few words, for a table; empty: not worth a place there."""


def cautions(facts: Facts) -> tuple[Caution, ...]:
    """The grave ones first."""
    return tuple(sorted((*_of_the_run(facts), *_of_the_slide(facts)), key=lambda found: not found.grave))


def _of_the_run(facts: Facts) -> Iterator[Caution]:
    made, counts = facts.made, facts.counts
    if facts.failed:
        yield Caution(
            True,
            f"The batch failed on this slide; what is shown is an earlier result: {facts.failed}",
            "failed; an earlier result",
        )
    if made.get("held_by"):
        text = f"A run is at work on this result, or was killed ({made['held_by']}): the figures may change."
        if not made.get("complete"):
            text += f" If it was killed, wsi-seg refine {shown_path(facts)} goes on."
        yield Caution(True, text, "at work")
    elif not made.get("complete"):
        rest = f" {tiles(counts.waiting)} that were chosen wait for Model 2." if counts.waiting else ""
        yield Caution(
            True,
            f"The run was stopped.{rest} The mask is valid; wsi-seg refine {shown_path(facts)} goes on.",
            "stopped",
        )
    if counts.unreadable:
        yield Caution(
            True,
            f"{tiles(counts.unreadable)} of the slide could not be read, or ended their worker "
            f"({percent(counts.unreadable / counts.tissue)} of the tissue). There the mask is the answer of "
            f"Model 1, or empty where Model 1 had none either.",
            f"{tiles(counts.unreadable)} unreadable",
        )
    if not counts.tissue:
        yield Caution(True, "No tissue was found, so nothing was looked at; see --tissue.", "no tissue")
    if facts.audit and not facts.audit.left:
        yield Caution(False, "The audit was begun and not finished.", "audit unfinished")
    elif facts.audit and 0 < counts.audited < FEW and counts.first:
        yield Caution(
            False,
            f"The audit rests on {tiles(counts.audited)}; with fewer than {FEW} its bound is rough.",
            "small audit",
        )
    if any(map(is_timed, facts.rules)):
        yield Caution(
            False,
            "The budget was one of time: on another machine other tiles would be refined.",
            "budget of time",
        )
    if made.get("version") != version("wsi-twostage"):
        yield Caution(
            False,
            f"It was made by version {made.get('version')} of wsi_twostage; "
            f"this report by {version('wsi-twostage')}.",
            "other version",
        )
    if facts.model is None:
        yield Caution(
            False, "The model's file is not where it was; its card and calibration are missing.", "model gone"
        )


def _of_the_slide(facts: Facts) -> Iterator[Caution]:
    slide = facts.made["slide"]
    if slide["mpp_source"] == "given":
        yield Caution(
            False,
            f"The slide's scale, {slide['mpp']:g} µm per pixel, was given by hand. Areas, and what the model "
            f"sees, rest on it.",
            "scale by hand",
        )
    if slide["mpp"] / facts.spec.mpp > ENLARGED:
        yield Caution(
            False,
            f"The slide has {slide['mpp']:g} µm per pixel, the mask {facts.spec.mpp:.4g}, since the model "
            f"was made for that: the slide was enlarged. Detail that it does not have cannot be found.",
            "enlarged",
        )
    if facts.slide is None:
        yield Caution(
            False,
            f"The slide cannot be opened where it was ({facts.slide_lost}). The pictures are made from the "
            f"result’s own overview.",
            "slide gone",
        )
    else:
        for text in facts.slide.warnings:
            yield Caution(False, f"{text[:1].upper()}{text[1:]}.", "")
