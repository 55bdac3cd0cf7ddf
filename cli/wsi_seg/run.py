"""wsi-seg run: slides in, mask pyramids out."""

import json
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import psutil

from wsi_seg import options
from wsi_seg.help import Command, files
from wsi_seg.progress import clock, listener, tell
from wsi_twostage import stopping
from wsi_twostage.batch import entries, is_batch, name_of, picture_of
from wsi_twostage.errors import ConfigError, ExitCode, WriteError, WsiError
from wsi_twostage.memory import keep_freed_memory
from wsi_twostage.summary import Line, Summary

if TYPE_CHECKING:
    from wsi_twostage.many import Outcome
    from wsi_twostage.result import Result


@click.command(
    cls=Command,
    short_help="Segment slides; what `wsi-seg SLIDE...` is short for.",
    sections=options.SECTIONS,
    examples=(
        ("wsi-seg run slide.svs --budget 10% --preview", "the most uncertain tenth, and a picture"),
        ("wsi-seg run slides/ -o results --budget 30min", "all slides of a folder, half an hour for each"),
        ("wsi-seg run 'slides/*.svs' -o results --refine none", "Model 1 alone"),
        ("wsi-seg run slide.tiff --mpp 0.25", "a file that does not know its scale"),
    ),
)
@click.argument("slides", nargs=-1, required=True, shell_complete=files)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path(),
    help="Folder for the results, or a name that ends in .zarr for the one slide.  [default: here]",
)
@options.model
@options.rule
@options.settings
@options.on_workers
@options.audit
@click.option(
    "--at-once",
    type=click.IntRange(min=1),
    help="Slides that share the workers.  [default: 1, with a scheduler 4]",
)
@click.option("--fail-fast", is_flag=True, help="Begin no more slides once one has failed.")
@options.max_seconds
@click.option("--overwrite", is_flag=True, help="Replace an existing result of wsi-seg.")
@click.option("--preview", is_flag=True, help="Write a picture beside each result, NAME.preview.png.")
@options.as_json
@options.quiet
@click.pass_context
def run(
    ctx: click.Context,
    /,
    slides: tuple[str, ...],
    output: Path,
    model: Path | None,
    threshold: float | None,
    budget: str | None,
    refine: str | None,
    target_gap: float | None,
    at_once: int | None,
    fail_fast: bool,
    max_seconds: float | None,
    overwrite: bool,
    preview: bool,
    as_json: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Segment SLIDES and write SLIDE.seg.ome.zarr for each.

    SLIDES are files, URLs, folders, patterns in quotes, or CSV manifests with a column wsi, and mpp, mask,
    threshold and output if need be. A run goes on with what an earlier one left, and does nothing twice. Of
    several slides there is a summary.json and a summary.csv.
    """
    keep_freed_memory()  # before numpy and torch start threads
    since, beginning = psutil.Process().create_time(), time.perf_counter()
    rule = options.read_rule(threshold, budget, refine, target_gap)
    found = entries(slides, output)
    pictures = {entry.output: picture_of(entry.output) for entry in found} if preview else {}
    for target, picture in pictures.items():
        if picture.exists() and not (overwrite or target.exists()):
            raise ConfigError(f"{picture} exists; give --overwrite or another --output")
    from wsi_twostage.many import segment_many
    from wsi_twostage.result import STATUSES
    from wsi_twostage.settings import Settings

    until = None if max_seconds is None else since + max_seconds
    made = Settings(**settings, until=until, overwrite=overwrite)
    table, ended = Summary(output.parent if output.suffix == ".zarr" else output, found), Counter[str]()
    if batch := is_batch(slides, found):
        table.ensure_ours()
        try:
            table.ensure_writable()  # before anything is spent
        except WriteError as error:
            raise ConfigError(str(error)) from error
    with stopping.on_signals():
        for outcome in segment_many(
            found,
            bundle=model,
            rule=rule,
            settings=made,
            listener_of=lambda entry: listener(name_of(entry.slide), quiet=quiet, as_json=as_json),
            at_once=at_once,
            fail_fast=fail_fast,
            since=since,
        ):
            entry, result = outcome.entry, outcome.result
            line = _line(outcome)
            ended[line.status] += 1
            if batch:
                table.add(entry, line)
            if outcome.error is not None:
                name = name_of(entry.slide)
                if as_json:
                    told = {"event": outcome.status, "slide": name, "path": entry.slide}
                    tell(json.dumps(told | {"output": str(entry.output), "error": str(outcome.error)}))
                if not batch:
                    raise outcome.error
                where = "" if name in str(outcome.error) else f"{name}: "
                tell(f"wsi-seg: {where}{outcome.error}", err=True)
            elif result is not None:
                tell(
                    as_json_of(entry.slide, entry.output, result)
                    if as_json
                    else summary(entry.slide, entry.output, result)
                )
                if preview and result.status != "stopped":
                    _preview(result, pictures[entry.output], quiet=as_json)
    spent = clock(time.perf_counter() - beginning)
    shown = [f"{ended[s]} {s}" for s in STATUSES if ended[s] or s in ("ok", "partial", "failed")]
    where = f" -> {table.write()}" if batch else ""
    tell(f"wsi-seg: {', '.join(shown)} in {spent}{where}", err=as_json)
    if ended["stopped"] or (ended["skipped"] and not (fail_fast and ended["failed"])):
        again = "the same command" + (" without --overwrite" if overwrite else "")
        click.echo(f"wsi-seg: stopped; what is on disk is valid, and {again} goes on with it", err=True)
        ctx.exit(ExitCode.INTERRUPTED)
    if ended["failed"] == len(found):
        ctx.exit(ExitCode.FAILED)
    if ended["failed"] or ended["partial"]:
        ctx.exit(ExitCode.SOME_FAILED)


def _line(outcome: "Outcome") -> Line:
    entry, result = outcome.entry, outcome.result
    line = Line(entry.slide, str(entry.output), outcome.status, str(outcome.error or ""))
    if result is None:
        return line
    counts, spent = result.counts, result.seconds.total
    if result.status == "done":  # before
        spent = result.store.manifest.get("seconds", {}).get("total", spent)
    return replace(
        line,
        tissue=counts.tissue,
        refined=counts.refined,
        unreadable=counts.unreadable,
        crashed=counts.crashed,
        seconds=round(spent, 1),
    )


def _preview(result: "Result", path: Path, *, quiet: bool) -> None:
    """Write the picture; that it cannot be drawn does not spoil the result."""
    from wsi_twostage.preview import write_preview

    try:
        write_preview(result.store, path, overwrite=True)  # what may be replaced was asked at the beginning
    except (WsiError, OSError) as error:
        click.echo(f"wsi-seg: no preview: {error}", err=True)
    else:
        tell(f"  picture  {path}", err=quiet)


def as_json_of(slide: str, target: Path, result: "Result") -> str:
    """A line for a program."""
    return json.dumps(
        {
            "event": "result",
            "slide": name_of(slide),
            "path": slide,
            "output": str(target),
            "status": result.status,
            **result.counts.as_json(),
            "seconds": result.seconds.as_json(),
            "left": result.audit,
            "manifest": result.store.manifest,
        }
    )


def summary(slide: str, target: Path, result: "Result") -> str:
    """Lines for a person."""
    from wsi_twostage.mask import Source

    spec, counts, seconds = result.store.spec, result.counts, result.seconds
    manifest = result.store.manifest
    why = ", then ".join([manifest["rule"], *manifest.get("further", [])])
    audited = result.audited if result.audit else 0
    tiles, seen = result.tiles, 0
    if counts.refined:  # else there may be no table yet
        seen = spec.tiles.areas(tiles["row"], tiles["col"])[tiles["source"] == Source.MODEL_2].sum()
    if audited:
        why += f"; {audited} of them for the audit"
    lines = [
        f"{name_of(slide)} -> {target}",
        f"  mask     {spec.width} x {spec.height} px at {spec.mpp:.4g} um/px, {spec.levels} levels",
        f"  tissue   {counts.tissue} of {counts.tiles} tiles of {spec.tile} px",
        f"  refined  {counts.refined} tiles, {counts.refined / max(counts.tissue, 1):.1%} of the tissue"
        f" ({why})",
        f"  changed  {counts.changed} px by Model 2, "
        f"{counts.changed / max(seen, 1):.2%} of the tiles that it saw",
    ]
    if counts.unreadable:
        lines.append(f"  UNREADABLE  {counts.unreadable} tiles; they are marked in wsi_twostage/tiles")
    if counts.crashed:
        lines.append(
            f"  CRASHED  {counts.crashed} tiles ended their worker each time; they keep Model 1's answer; "
            f"`wsi-seg refine {target} --processes 1` tries again"
        )
    if audited:
        lines.extend(
            f"  left     {part['gap']:.4f} of Dice to --refine all ({part['name']}), at most "
            f"{part['bound']:.4f} with 95 % confidence, from {audited} random tiles"
            for part in result.audit
        )
    elif result.audit:
        settled = counts.refined + counts.unreadable + counts.crashed
        lines.append(
            "  left     nothing for the audit to draw: no tile is left to Model 1"
            if settled == counts.tissue
            else "  left     not known: none of the audit's tiles could be read"
        )
    lines.append(
        f"  time     {seconds.total:.1f} s: overview {seconds.overview:.1f}, stage 1 {seconds.stage_1:.1f}, "
        f"stage 2 {seconds.stage_2:.1f}; {seconds.network_share:.0%} of the thread time in the networks"
    )
    return "\n".join(lines)
