"""`wsi-seg` without what only POSIX has, and by Windows' rules for files, for each line of the input.

    echo 'slide.svs -o out' | python tests/like_windows.py

Our modules find no `fcntl`, no `resource` and no `os.pread`, and open no folder. A file that this process has
open is neither renamed nor removed, nor is a folder that holds it; `os.rename` takes nobody's place. The
libraries go on as they are. Needs Linux, which knows what is open.
"""

import builtins
import errno
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

_OURS = "wsi_seg.", "wsi_twostage."
_MODULES = "fcntl", "resource"
_NAMES = "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "geteuid", "pread", "sched_getaffinity"


def imitate() -> None:
    """From here on, and for good."""
    lacking, imported = ModuleType("os"), builtins.__import__

    def import_there(
        name: str, globals: dict[str, Any] | None = None, *arguments: Any, **options: Any
    ) -> ModuleType:
        if (globals or {}).get("__name__", "").startswith(_OURS):
            if name in _MODULES:
                raise ModuleNotFoundError(name)
            if name == "os":
                return lacking
        return imported(name, globals, *arguments, **options)

    shutil._use_fd_functions = False  # type: ignore[attr-defined]  # they remove by a folder's descriptor
    os.rename, os.replace = _only_renamed(os.rename), _only_replaced(os.replace)
    os.unlink, os.remove, os.rmdir = map(_only_closed, (os.unlink, os.remove, os.rmdir))
    lacking.__dict__.update({name: value for name, value in vars(os).items() if name not in _NAMES})
    lacking.__dict__["open"] = _only_files(os.open)
    builtins.__import__ = import_there


def _only_renamed(rename: Callable[..., None]) -> Callable[..., None]:
    def renamed(source: Any, target: Any) -> None:
        _ensure_closed(source)
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        rename(source, target)

    return renamed


def _only_replaced(replace: Callable[..., None]) -> Callable[..., None]:
    def replaced(source: Any, target: Any) -> None:
        _ensure_closed(source)
        _ensure_closed(target)
        if os.path.isdir(target):
            raise _denied(target)
        replace(source, target)

    return replaced


def _only_closed(remove: Callable[..., None]) -> Callable[..., None]:
    def removed(path: Any) -> None:
        _ensure_closed(path)
        remove(path)

    return removed


def _only_files(opened: Callable[..., int]) -> Callable[..., int]:
    def open_file(path: Any, *arguments: Any) -> int:
        if os.path.isdir(path):
            raise _denied(path)
        return opened(path, *arguments)

    return open_file


def _ensure_closed(path: Any) -> None:
    place = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    if any(found == place or found.startswith(f"{place}/") for found in _in_use()):
        raise _denied(path)


def _in_use() -> set[str]:
    """Files that this process has open or mapped."""
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    found = {line.split(maxsplit=5)[5] for line in lines if "/" in line}
    for link in Path("/proc/self/fd").iterdir():
        try:
            found.add(str(link.readlink()))
        except OSError:  # closed meanwhile
            continue
    return found


def _denied(path: Any) -> PermissionError:
    return PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


if __name__ == "__main__":
    imitate()
    from command import wsi_seg

    for line in sys.stdin:
        done = wsi_seg(*shlex.split(line), cwd=Path.cwd())
        print(f"{done.stdout}{done.stderr}exit code {done.returncode}: {line}", flush=True)
