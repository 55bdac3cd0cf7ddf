"""The allocator's settings."""

import platform
import subprocess
import sys

import pytest


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_glibc_takes_every_setting() -> None:
    """In a process of its own: the settings are for good."""
    code = "import sys; from wsi_twostage.memory import keep_freed_memory; sys.exit(not keep_freed_memory())"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
