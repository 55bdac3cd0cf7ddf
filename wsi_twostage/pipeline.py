"""segment(): Algorithm 1 on a slide, from the file to the mask pyramid."""

import os
import time
from pathlib import Path

from distributed import Client

from wsi_twostage.agenda import Agenda
from wsi_twostage.events import Listener, Note, ignore
from wsi_twostage.fitness import ensure_fit
from wsi_twostage.ledger import Ledger
from wsi_twostage.manifest import writing
from wsi_twostage.models.bundle import ModelBundle
from wsi_twostage.preparing import prepare, resolve, tissue_of_file
from wsi_twostage.result import Result
from wsi_twostage.schedule import begin
from wsi_twostage.selection import Rule, TargetGap
from wsi_twostage.settings import Settings
from wsi_twostage.slide import Slide
from wsi_twostage.workers import is_elsewhere


def segment(
    slide: str | os.PathLike[str] | Slide,
    output: str | os.PathLike[str],
    *,
    bundle: ModelBundle | str | os.PathLike[str] | None = None,
    rule: Rule | TargetGap | None = None,
    settings: Settings | None = None,
    listener: Listener = ignore,
    since: float | None = None,
    client: Client | None = None,
    priority: int = 0,
) -> Result:
    """Segment a slide in two stages and write the mask pyramid.

    A run that is stopped (`Settings.until`, `stopping.ASKED`) gives a result that is not ``complete``.

    >>> result = segment("slide.svs", "slide.seg.ome.zarr", rule=Fraction(0.1))  # doctest: +SKIP

    Parameters
    ----------
    output
        Folder of the OME-Zarr store. The call goes on with what an earlier one of the same slide, model and
        parameters left there.
    bundle
        The model; None for the one that ships in the package.
    rule
        What is refined; None for the threshold in the bundle. A target gap becomes the threshold that the
        bundle's calibration promises it for.
    since
        When the clock of a time budget began, in seconds of `time.time`; None: now.
    client
        Of a Dask cluster to use, instead of what the settings say.
    priority
        Of several slides on one cluster, the higher goes first.

    Raises
    ------
    SlideError, BundleError, ConfigError, StoreError
        Before any work is done, and with nothing touched.
    LostSlide, ClusterError, WriteError, DeviceFull
        The slide, the workers or the place for the output went away during the run, or a GPU has no room for
        a tile; what is on disk is valid, and the same call goes on with it. A region that cannot be decoded
        costs its tiles only, and so does one that ends its worker process each time; they are marked in the
        tile table.
    """
    started, settings = time.perf_counter(), settings or Settings()
    since = time.time() if since is None else since
    ready = prepare(slide, bundle, settings, elsewhere=is_elsewhere(client))
    rule, said = resolve(rule, ready.spec, settings, listener)
    if ready.views.fine.downsample < 1 / 1.1:
        listener(
            Note(f"{ready.slide.mpp:g} um/px is coarser than the model's {ready.spec.mpp:g}; it is enlarged")
        )
    drawn = tissue_of_file(settings.tissue, ready.slide, ready.views.overview)
    manifest = {**ready.manifest(settings), "rule": said}
    with (
        settings.connect(client) as workers,
        writing(
            Path(output),
            ready.mask,
            manifest,
            overwrite=settings.overwrite,
            before_overwriting=lambda: ensure_fit(workers, ready.views.fine, ready.model, Path(output)),
        ) as mask,
        begin(ready.work(mask, settings), workers, listener, priority=priority) as run,
    ):
        agenda, tiles = Agenda.begin(mask, rule, said, since), Ledger.none(mask)
        with run.stoppable():
            with run.timed("overview"):
                tiles = run.look(settings.tissue, drawn)
                run.restore(tiles)
            with run.timed("stage 1"):  # line 1: p = up(f1(down(x))), and u, h of each tile
                run.coarse(tiles)
            with run.timed("selection"):  # line 2: patches = {(i, j) | g(h(c_ij(p)))}
                agenda.choose(tiles)
            with run.timed("stage 2"):  # line 3: c_ij(p) = f2(c_ij(x)) for (i, j) in patches
                run.refine(tiles, until=agenda.until, audit=settings.audit)
                agenda.spend()
            run.audit(tiles, settings.audit)
        return run.finish(started, tiles)
