"""Which slide a file is, by its content."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache

from wsi_twostage.errors import SlideError
from wsi_twostage.slide import ome_zarr, openslide_reader
from wsi_twostage.slide.contents import FileKey, cannot_open, cannot_read

_ENDS_BYTES = 2**20  # of the file's start and of its end


def fingerprint_of(path: str, reader: str) -> str:
    """A cheap key of the content: sha256 over the file's size, its first and its last MiB.

    Of an OME-Zarr: over what describes it. Of what OpenSlide reads: also over its own key, since a slide may
    be more than the one file.

    Raises
    ------
    SlideError
        It cannot be read.
    """
    return _fingerprint(FileKey.of(path), reader)


@lru_cache(maxsize=64)
def _fingerprint(key: FileKey, reader: str) -> str:
    if reader == "zarr":
        return ome_zarr.fingerprint(key.path)
    digest = hashlib.sha256(str(key.size).encode())
    if reader == "openslide":
        digest.update(openslide_reader.quick_hash(key.path).encode())
    try:
        file = open(key.path, "rb")  # noqa: SIM115
    except OSError as error:
        raise cannot_open(key.path, error) from error
    try:
        with file:
            digest.update(file.read(_ENDS_BYTES))
            file.seek(max(0, key.size - _ENDS_BYTES))
            digest.update(file.read())
    except OSError as error:
        raise cannot_read(key.path, error) from error
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Identity:
    """The slide that a run began with."""

    path: str
    reader: str
    fingerprint: str

    def ensure_same(self) -> None:
        """Look again; costs a look at the file's date unless that has changed.

        Raises
        ------
        SlideError
            It is gone, or another lies there, as on a machine with files of its own.
        """
        if fingerprint_of(self.path, self.reader) != self.fingerprint:
            raise SlideError(f"{self.path}: not the slide that the run was started with; run again")
