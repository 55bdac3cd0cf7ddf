"""All examinations one after the other, the quick ones first."""

from collections.abc import Iterator
from pathlib import Path

from wsi_twostage.doctor.finding import Finding
from wsi_twostage.doctor.machine import examine_cores, examine_files, examine_gpu, examine_memory
from wsi_twostage.doctor.networks import examine_networks
from wsi_twostage.doctor.place import examine_place
from wsi_twostage.doctor.software import examine_codecs, examine_openslide, examine_packages


def examine(folder: Path, *, model: Path | None = None, device: str = "auto") -> Iterator[Finding]:
    """Look at packages, codecs, cores, GPU, networks, memory and a folder for results, as it is asked for.

    Takes some seconds. What is written to the folder is removed again; nothing else is written.

    Parameters
    ----------
    folder
        Where results would go; it need not be there yet.
    model
        A bundle; None: the shipped one.
    device
        Where it would run, as in `Settings`.
    """
    yield from examine_packages()
    yield examine_openslide()
    yield examine_codecs()
    yield examine_cores()
    yield from examine_files()
    yield examine_gpu()
    yield from examine_networks(model, device)
    yield examine_memory()  # after the networks: it says what they took
    yield from examine_place(folder)
