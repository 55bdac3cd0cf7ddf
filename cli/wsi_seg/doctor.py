"""wsi-seg doctor: what this machine has for a run, and what is missing."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wsi_seg import options
from wsi_seg.help import Command
from wsi_twostage.errors import ExitCode
from wsi_twostage.memory import keep_freed_memory

if TYPE_CHECKING:
    from wsi_twostage.doctor import Finding

_STYLES = {"ok": "green", "note": "yellow", "problem": "bold red"}


@click.command(
    cls=Command,
    short_help="What this machine has for a run, and what is missing.",
    examples=(("wsi-seg doctor", "results in this folder"), ("wsi-seg doctor -o /data/results", "or there")),
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path(),
    help="Folder that is tried as the place of results.  [default: here]",
)
@options.model
@options.device
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def doctor(ctx: click.Context, /, output: Path, model: Path | None, device: str, as_json: bool) -> None:
    """Look at packages, codecs, cores, memory, GPU and a folder for results, and time the model.

    Takes some seconds. What is written to the folder is removed again. Ends with 0, or with 1 where
    something would make a run fail.
    """
    keep_freed_memory()  # as in a run
    from wsi_twostage.doctor import examine

    findings = list["Finding"]()
    for finding in examine(output, model=model, device=device):
        findings.append(finding)
        if not as_json:
            _show(finding)
    states = [finding.state for finding in findings]
    problems, notes = states.count("problem"), states.count("note")
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        click.echo(f"wsi-seg: {_count(problems, 'problem')}, {_count(notes, 'note')}")
    if problems:
        ctx.exit(ExitCode.FAILED)


def _show(finding: "Finding") -> None:
    """A line, and one with the advice; coloured on a terminal only, and never with NO_COLOR."""
    from rich.console import Console
    from rich.text import Text

    line = Text.assemble(
        (f"{finding.state:8}", _STYLES[finding.state]), f" {finding.what:11} ", finding.found
    )
    if finding.advice:
        line.append(f"\n{'':9}-> {finding.advice}")
    Console(highlight=False).print(line, soft_wrap=True)


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"
