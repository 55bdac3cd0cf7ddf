"""refine(): another round of Model 2 on a result that is there, on this machine or another."""

import os
import time
from dataclasses import replace
from pathlib import Path

from distributed import Client

from wsi_twostage.agenda import end_of, let_go
from wsi_twostage.errors import ConfigError, SlideError, StoreError
from wsi_twostage.events import Listener, Note, ignore
from wsi_twostage.ledger import Ledger
from wsi_twostage.manifest import writing
from wsi_twostage.mask import MaskPyramid
from wsi_twostage.models.header import find_bundle
from wsi_twostage.preparing import drawn_on, prepare
from wsi_twostage.result import Result
from wsi_twostage.schedule import begin
from wsi_twostage.selection import ALL, Duration, Rule, ensure_rule
from wsi_twostage.settings import Settings
from wsi_twostage.slide import Slide
from wsi_twostage.slide.contents import is_url
from wsi_twostage.tissue import tissue_tiles
from wsi_twostage.workers import is_elsewhere


def refine(
    output: str | os.PathLike[str],
    rule: Rule | None = None,
    *,
    region: str | os.PathLike[str] | None = None,
    slide: str | os.PathLike[str] | Slide | None = None,
    bundle: str | os.PathLike[str] | None = None,
    settings: Settings | None = None,
    listener: Listener = ignore,
    since: float | None = None,
    client: Client | None = None,
) -> Result:
    """Go on with a result: Model 2 on more of its tiles.

    Parameters
    ----------
    rule
        Which of the tiles that Model 2 has not seen; a share is one of all tissue tiles. None: every one of
        ``region``; without one, what was chosen before and is not done, and, where there are worker
        processes, tiles once more that ended theirs.
    region
        GeoJSON or a mask image, as for `Settings.tissue`: only tiles that it touches. What was chosen before
        and is not done elsewhere waits on.
    slide, bundle
        Where they are now; None: where they were.
    settings
        Device, workers, scheduler and time; what decides the pixels is as it was.
    client
        Of a Dask cluster to use, instead of what the settings say.

    Raises
    ------
    StoreError
        There is no whole mask, its run ended before it chose tiles, or the slide or the model is not the one
        that made it.
    SlideError, BundleError, ConfigError, LostSlide, ClusterError, WriteError, DeviceFull
        As `segment`.
    """
    started, since = time.perf_counter(), time.time() if since is None else since
    if rule is not None:
        ensure_rule(rule)
    made = MaskPyramid.open(output).manifest
    if not made.get("chosen", True):
        raise StoreError(
            f"{output}: its run ended before it chose tiles ({made['rule']}); give the command that made it "
            f"again"
        )
    settings = replace(
        settings or Settings(),
        mpp=made["slide"]["mpp"] if made["slide"]["mpp_source"] == "given" else None,
        reader=made["slide"]["reader"],
        **{name: made[name] for name in ("uncertainty", "precision", "engine")},
    )
    if bundle is None:
        bundle = find_bundle(made["model"]["path"], made["model"]["sha256"]) or made["model"]["path"]
    before = made["slide"]["path"]
    if slide is None and not is_url(before) and not os.path.exists(before):
        raise SlideError(f"{before}: not there any more; --slide says where it is now")
    ready = prepare(slide or before, bundle, settings, elsewhere=is_elsewhere(client))
    inside = None
    if region is not None:
        drawn = drawn_on(region, ready.slide, ready.views.overview)
        inside = tissue_tiles(drawn, ready.mask.tiles, ready.mask.overview_downsample) > 0
        rule = rule or ALL
    manifest = {**ready.manifest(settings), "tissue": made["tissue"]}
    with (
        settings.connect(client) as workers,
        writing(
            Path(output), ready.mask, manifest, instead="give the slide and the model that made it"
        ) as mask,
        begin(ready.work(mask, settings), workers, listener) as run,
    ):
        tiles = Ledger.read(mask)
        if inside is not None and not (inside & tiles.tissue).any():
            raise ConfigError(
                f"{region}: touches no tissue of {made['slide']['path']}; its coordinates are pixels of "
                f"level 0, of which there are {ready.slide.width} x {ready.slide.height}"
            )
        with run.timed("selection"):
            run.restore(tiles)
            let_go(mask, tiles)
            waiting = 0 if inside is None else int((tiles.open & ~inside).sum())
            mask.note(complete=False)  # first: tiles that wait are in no complete result
            if rule is None and settings.audit is None and (settings.processes or is_elsewhere(workers)):
                tiles.try_again()  # not where they would end this process
            if rule is not None:
                mask.note(audit=None, lapses=tiles.last_round + 1 if isinstance(rule, Duration) else None)
                tiles.choose_more(rule, inside)
                where = f" in {Path(region).name}" if region is not None else ""
                mask.note(further=[*mask.manifest.get("further", []), f"{rule}{where}"])
        with run.stoppable():
            with run.timed("stage 2"):
                run.refine(tiles, within=inside, until=end_of(rule, since), audit=settings.audit)
            run.audit(tiles, settings.audit)
        if waiting and tiles.open.any():
            listener(Note(f"{waiting} tiles elsewhere wait for Model 2; refine without a region goes on"))
        return run.finish(started, tiles)
