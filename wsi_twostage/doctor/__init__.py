"""What this machine has for a run, and what is missing: looked at, tried and timed, one line each."""

from wsi_twostage.doctor.examination import examine
from wsi_twostage.doctor.finding import Finding

__all__ = ["Finding", "examine"]
