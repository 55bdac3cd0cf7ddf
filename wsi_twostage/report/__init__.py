"""One self-contained HTML file that says what results show, how good they are, and which stand out."""

from wsi_twostage.report.write import write_report

__all__ = ["write_report"]
