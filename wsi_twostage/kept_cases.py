"""What a calibration has seen of its slides so far, kept beside its bundle until that is written."""

import re
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from wsi_twostage.drafts import clear, whole_file
from wsi_twostage.errors import StoreError, WriteError
from wsi_twostage.lock import locked
from wsi_twostage.quality import Case

_OURS = re.compile(r"[0-9a-f]{16}\.(npz|zarr)")
_DAMAGED = (BadZipFile, EOFError, KeyError, RuntimeError, ValueError, zlib.error)  # numpy's, of archives


@dataclass(frozen=True)
class KeptCases:
    """Cases in a folder, each by what made it (`manifest.identity_of`)."""

    folder: Path

    @contextmanager
    def held(self) -> Iterator[None]:
        """The folder, for one calibration at a time; afterwards it is gone if it is empty.

        Raises
        ------
        Busy
            Another one is at work.
        WriteError
            The folder cannot be made.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WriteError.of(self.folder, error) from error
        with locked(self.folder, "another calibration"):
            try:
                yield
            finally:
                with suppress(OSError):
                    self.folder.rmdir()

    def read(self, made_of: str) -> Case | None:
        """A case that an interrupted calibration has left; None: there is none, or it is damaged.

        Raises
        ------
        StoreError
            A file that is there and cannot be read.
        """
        path = self.folder / f"{made_of}.npz"
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"{path}: cannot be read ({error.strerror or error})") from error
        try:
            with np.load(BytesIO(content)) as kept:
                return Case(str(kept["name"]), kept["histogram"], kept["positive"], kept["overlap"])
        except _DAMAGED:
            return None

    def keep(self, made_of: str, case: Case) -> None:
        """Write a case, and remove the result that it was counted from."""
        with whole_file(self.folder / f"{made_of}.npz") as draft, draft.open("wb") as file:
            np.savez_compressed(
                file,
                name=np.array(case.name),
                histogram=case.histogram,
                positive=case.positive,
                overlap=case.overlap,
            )
        shutil.rmtree(self.store_of(made_of), ignore_errors=True)

    def store_of(self, made_of: str) -> Path:
        """Where a slide's result is, while it is made."""
        return self.folder / f"{made_of}.zarr"

    def remove(self) -> None:
        """All of it; what somebody else put there stays."""
        clear(self.folder, _OURS)
