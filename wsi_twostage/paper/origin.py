"""What made a result: the machine and the commit."""

import platform
import subprocess
from pathlib import Path
from typing import Any

import torch


def machine(device: torch.device) -> dict[str, Any]:
    """Device, threads, and torch's version."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "device": f"{device.type} ({name})",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def commit() -> str:
    """Of the checkout that runs, with a + if files were changed; empty for an installed package."""
    git, here = ("git", "-C", str(Path(__file__).parent)), Path(__file__).name
    try:
        ours = subprocess.run([*git, "ls-files", "--error-unmatch", here], capture_output=True)
        if ours.returncode:  # installed, perhaps within a checkout of something else
            return ""
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True)
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True)
    except OSError:
        return ""
    return head.stdout.strip() + "+" * bool(changed.stdout.strip()) if head.returncode == 0 else ""
