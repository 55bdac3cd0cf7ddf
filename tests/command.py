"""The command in this process, where torch is imported already; test_cli runs it as a user does."""

import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from unittest.mock import patch

from wsi_seg.main import main


def wsi_seg(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """What it ends with and says."""
    argv, out, err, code = ["wsi-seg", *map(str, arguments)], StringIO(), StringIO(), None
    with chdir(cwd), patch.object(sys, "argv", argv), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code
    assert code is None or isinstance(code, int)
    return subprocess.CompletedProcess(argv, code or 0, out.getvalue(), err.getvalue())
