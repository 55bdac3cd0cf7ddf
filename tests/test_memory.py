"""The allocator's settings."""

import platform
import subprocess
import sys

import pytest


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
@pytest.mark.parametrize("most", ["", "ALL"])
def test_glibc_takes_every_setting(most: str) -> None:
    """In a process of its own: the settings are for good."""
    code = f"import sys; from wsi_twostage.memory import *; sys.exit(not keep_freed_memory({most}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
