"""wsi-seg plan: what a run would do and cost."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wsi_seg import options
from wsi_seg.help import Command, files
from wsi_twostage.memory import keep_freed_memory

if TYPE_CHECKING:
    from wsi_twostage.planning import Plan


@click.command(
    cls=Command,
    short_help="What a run would do and cost.",
    sections=options.SECTIONS,
    examples=(("wsi-seg plan slide.svs --budget 10%", "before anything is spent"),),
)
@click.argument("slide", shell_complete=files)
@options.model
@options.rule
@options.settings
@options.audit
@options.device
@options.workers
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def plan(
    slide: str,
    model: Path | None,
    threshold: float | None,
    budget: str | None,
    refine: str | None,
    target_gap: float | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Say what `wsi-seg run SLIDE` would do and cost.

    Both networks are timed for a few seconds; nothing is written.
    """
    keep_freed_memory()  # as in a run
    rule = options.read_rule(threshold, budget, refine, target_gap)
    from wsi_twostage.planning import plan as make
    from wsi_twostage.settings import Settings

    made = make(slide, bundle=model, rule=rule, settings=Settings(**settings))
    click.echo(json.dumps(asdict(made), indent=2) if as_json else _text(made))


def _text(made: "Plan") -> str:
    slide = made.slide
    size = f"{slide.width} x {slide.height} px, {slide.mpp:g} um/px"
    lines = [f"{size}, {slide.format}, read by {slide.reader}"]
    for name, stage in (("Model 1", made.stage_1), ("Model 2", made.stage_2)):
        view, scale = stage.view, max(stage.view.scale)
        source = f"level {view.level.index}" + ("" if scale == 1 else f", {scale:.3g} times finer")
        lines.append(
            f"  {name}  {view.mpp:.3g} um/px from {source}: {stage.tiles} tiles in {stage.windows} windows,\n"
            f"           {stage.megapixels:.0f} Mpx, {stage.decoded_megapixels:.0f} decoded, "
            f"about {stage.seconds:.0f} s"
        )
    share = made.stage_2.tiles / max(made.tissue, 1)
    lines += [
        f"  tissue   {made.tissue} of {made.tiles} tiles",
        f"  refined  {share:.0%} of them: {made.rule}, {made.refined_from}",
        f"  memory   {made.memory_gib:.1f} GiB at most, with {made.workers} workers",
        f"  output   about {made.output_mib:.0f} MiB",
        f"  time     about {made.seconds:.0f} s",
        *(f"  note     {note}" for note in made.notes),
    ]
    return "\n".join(lines)
