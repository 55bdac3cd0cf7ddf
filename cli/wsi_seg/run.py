"""wsi-seg run: slides in, mask pyramids out."""

import json
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import psutil

from wsi_seg import options
from wsi_seg.progress import listener
from wsi_twostage import stopping
from wsi_twostage.errors import ConfigError, ExitCode, WsiError
from wsi_twostage.memory import keep_freed_memory

if TYPE_CHECKING:
    from wsi_twostage.result import Result


@click.command()
@click.argument("slides", nargs=-1, required=True)
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
@options.scheduler
@options.max_seconds
@click.option("--overwrite", is_flag=True, help="Replace an existing result of wsi-seg.")
@click.option("--preview", is_flag=True, help="Write a picture beside each result, NAME.preview.png.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per slide.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
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
    max_seconds: float | None,
    overwrite: bool,
    preview: bool,
    as_json: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Segment SLIDES and write SLIDE.seg.ome.zarr for each."""
    keep_freed_memory()  # before numpy and torch start threads
    rule = options.read_rule(threshold, budget, refine, target_gap)
    targets = _targets(slides, output)
    pictures = {slide: _picture(target) for slide, target in targets.items()} if preview else {}
    for picture in pictures.values():
        if picture.exists() and not overwrite:
            raise ConfigError(f"{picture} exists; give --overwrite or another --output")
    start = time.perf_counter()
    from wsi_twostage.pipeline import Settings, segment
    from wsi_twostage.result import STATUSES

    since = psutil.Process().create_time()
    until = None if max_seconds is None else since + max_seconds
    made = Settings(**settings, until=until, overwrite=overwrite)
    ended = Counter[str]()
    with stopping.on_signals():
        for slide, target in targets.items():
            try:
                with listener(_name(slide), quiet=quiet) as listen:
                    result = segment(
                        slide, target, bundle=model, rule=rule, settings=made, listener=listen, since=since
                    )
            except WsiError as error:
                if len(slides) == 1:
                    raise
                click.echo(f"wsi-seg: {error}", err=True)
                ended["failed"] += 1
                continue
            click.echo(as_json_of(result, target) if as_json else summary(slide, target, result))
            ended[result.status] += 1
            if result.status == "stopped":
                break
            if preview:
                _preview(result, pictures[slide], quiet=as_json)
            since = time.time()
    spent = time.strftime("%H:%M:%S", time.gmtime(time.perf_counter() - start))
    shown = [f"{ended[s]} {s}" for s in STATUSES if ended[s] or s in ("ok", "partial", "failed")]
    click.echo(f"wsi-seg: {', '.join(shown)} in {spent}", err=as_json)
    if ended["stopped"]:
        click.echo(
            "wsi-seg: stopped; what is on disk is valid, and the same command goes on with it", err=True
        )
        ctx.exit(ExitCode.INTERRUPTED)
    if ended["failed"] == len(slides):
        ctx.exit(ExitCode.FAILED)
    if ended["failed"] or ended["partial"]:
        ctx.exit(ExitCode.SOME_FAILED)


def _targets(slides: tuple[str, ...], output: Path) -> dict[str, Path]:
    """Where each slide's result goes."""
    if output.suffix == ".zarr":
        if len(slides) > 1:
            raise ConfigError(
                f"--output {output} names one result, but {len(slides)} slides were given; give a folder"
            )
        return {slides[0]: output}
    targets = {slide: output / f"{_stem(slide)}.seg.ome.zarr" for slide in slides}
    if len(set(targets.values())) < len(slides):
        raise ConfigError("two slides have the same name, so their results would too; run them apart")
    return targets


def _name(slide: str) -> str:
    """The last part of a path or a URL."""
    return slide.rstrip("/").rsplit("/", 1)[-1]


def _stem(slide: str) -> str:
    """Its name without what says the format: a.svs, a.ome.tiff and a.ome.zarr are all a."""
    return Path(_name(slide)).stem.removesuffix(".ome")


def _picture(target: Path) -> Path:
    """Where the preview of a result goes."""
    return target.with_name(target.name.removesuffix(".zarr").removesuffix(".seg.ome") + ".preview.png")


def _preview(result: "Result", path: Path, *, quiet: bool) -> None:
    """Write the picture; that it cannot be drawn does not spoil the result."""
    from wsi_twostage.preview import write_preview

    try:
        write_preview(result.store, path)
    except WsiError as error:
        click.echo(f"wsi-seg: no preview: {error}", err=True)
    else:
        click.echo(f"  picture  {path}", err=quiet)


def as_json_of(result: "Result", target: Path) -> str:
    """A line for a program."""
    return json.dumps(
        {
            "output": str(target),
            "status": result.status,
            **result.counts.as_json(),
            "seconds": result.seconds.as_json(),
            "manifest": result.store.manifest,
        }
    )


def summary(slide: str, target: Path, result: "Result") -> str:
    """Lines for a person."""
    spec, counts, seconds = result.store.spec, result.counts, result.seconds
    manifest = result.store.manifest
    lines = [
        f"{_name(slide)} -> {target}",
        f"  mask     {spec.width} x {spec.height} px at {spec.mpp:.4g} um/px, {spec.levels} levels",
        f"  tissue   {counts.tissue} of {counts.tiles} tiles of {spec.tile} px",
        f"  refined  {counts.refined} tiles, {counts.refined / max(counts.tissue, 1):.1%} of the tissue"
        f" ({', then '.join([manifest['rule'], *manifest.get('further', [])])})",
    ]
    if counts.unreadable:
        lines.append(f"  UNREADABLE  {counts.unreadable} tiles; they are marked in wsi_twostage/tiles")
    lines.append(
        f"  time     {seconds.total:.1f} s: overview {seconds.overview:.1f}, stage 1 {seconds.stage_1:.1f}, "
        f"stage 2 {seconds.stage_2:.1f}; {seconds.network_share:.0%} of the thread time in the networks"
    )
    return "\n".join(lines)
