"""wsi-seg tables: the paper's tables, ours beside what was printed."""

from pathlib import Path

import click

from wsi_seg.help import Command


@click.command(
    cls=Command,
    short_help="Tables 1, 3 and 4 of the paper, ours beside its own.",
    examples=(
        ("wsi-seg tables 1", ""),
        ("wsi-seg tables 3 runs", "from the reports in a folder"),
    ),
)
@click.argument("number", type=click.Choice(["1", "3", "4"]))
@click.argument("runs", required=False, type=click.Path(path_type=Path))
@click.option(
    "--rows", "data", multiple=True, metavar="DATA", help="Print the names of the rows on this data."
)
def tables(number: str, runs: Path | None, data: tuple[str, ...]) -> None:
    """Print Table 1, 3 or 4 of the paper as Markdown, ours beside the paper's in brackets.

    Table 1 is counted now. Tables 3 and 4 are made from the reports in the folder RUNS that
    `wsi-seg evaluate` wrote; what has no report is left out. `wsi-seg tables 4 --rows bowl` prints the names
    of the experiments that Table 4 needs on BOWL, beside those of Table 3.
    """
    from wsi_twostage.errors import ConfigError, did_you_mean
    from wsi_twostage.paper.datasets import DATASETS
    from wsi_twostage.paper.reports import Report, read_report
    from wsi_twostage.paper.rows import rows
    from wsi_twostage.paper.tables import is_row, table1, table3, table4

    if number == "1":
        click.echo(table1())
    elif data:
        if unknown := sorted(set(data) - set(DATASETS)):
            near = did_you_mean(unknown[0], DATASETS)
            raise ConfigError(f"--rows {unknown[0]}: no such data; known: {', '.join(DATASETS)}{near}")
        click.echo("\n".join(rows(int(number), data)))
    else:
        reports: dict[str, Report] = {}
        for path in sorted(runs.glob("*.json")) if runs else []:
            try:
                report = read_report(path)
            except ConfigError as error:
                click.echo(f"wsi-seg: left out: {error}", err=True)
                continue
            if report.name in reports:
                click.echo(f"wsi-seg: left out: {path}: another report of {report.name}", err=True)
                continue
            if not is_row(report):
                click.echo(f"wsi-seg: left out: {path}: {report.name} is no row of Table 3 or 4", err=True)
            reports[report.name] = report
        if not reports:
            raise ConfigError(f"{runs or 'no folder given'}: no reports; make some with wsi-seg evaluate")
        click.echo((table3 if number == "3" else table4)([*reports.values()]))
