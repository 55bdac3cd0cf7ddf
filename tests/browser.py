"""A Chromium without a screen, for tests and pictures of the viewer, the report and Viv."""

import json
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import Any

import pytest

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",  # a container's /dev/shm may be too small for a picture
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
PATIENCE_S = 120
"""Long enough for two cores that are busy with something else."""


@cache
def has_chromium() -> bool:
    """Whether selenium, a Chromium and its driver are here, and both start and are of one version.

    A half installed browser, or a driver that was left behind by an update, would fail every test instead.
    """
    if not find_spec("selenium"):
        return False
    versions = {_version(program) for program in (_chromium(), shutil.which("chromedriver"))}
    return len(versions) == 1 and None not in versions


def _chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return next((path for path in map(shutil.which, names) if path), None)


def _version(program: str | None) -> str | None:
    """The first number of its version; None if it does not say one."""
    if program is None:
        return None
    try:
        told = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"(\d+)\.\d+\.\d+", told.stdout)
    return found and found[1]


needs_chromium = pytest.mark.skipif(
    not has_chromium(), reason="no selenium, or no chromium and chromedriver of one version"
)


@contextmanager
def chromium(width: int = 1280, height: int = 800, *more: str, requests: bool = False) -> Iterator[Any]:
    """A driver of a browser with a fresh profile and a window of this size; ``more`` are flags.

    With ``requests`` it also logs what pages ask for, see ``asked``.
    """
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = _chromium() or ""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (*FLAGS, *more, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        logs = {"browser": "ALL"} | ({"performance": "ALL"} if requests else {})
        options.set_capability("goog:loggingPrefs", logs)
        driver = Chrome(options=options, service=Service(shutil.which("chromedriver")))
        try:
            resize(driver, width, height)
            yield driver
        finally:
            driver.quit()


def resize(driver: Any, width: int, height: int, *, phone: bool = False) -> None:
    """Of the page; a phone has fingers, and two pixels for one."""
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1 + phone, "mobile": phone},
    )
    driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": phone, "maxTouchPoints": 2})


def prefer(driver: Any, scheme: str) -> None:
    """A ``light`` or ``dark`` page."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": features})


def wait(driver: Any, script: str, *, patience_s: float = PATIENCE_S) -> Any:
    """Until a JavaScript expression is true; gives what it is."""
    return until(lambda: driver.execute_script(f"return {script}"), script, patience_s=patience_s)


def until(condition: Callable[[], Any], what: str, *, patience_s: float = PATIENCE_S) -> Any:
    """Asks again and again until the answer is true, and gives it; ``what`` is for the message."""
    end = time.monotonic() + patience_s
    while not (found := condition()):
        assert time.monotonic() < end, f"in {patience_s:g} s it never came: {what}"
        time.sleep(0.05)
    return found


def wait_for_picture(driver: Any) -> None:
    """Until all tiles of the layers shown are there."""
    wait(driver, "window.world && world.loaded")


def asked(driver: Any) -> list[str]:
    """The addresses that pages asked for since this was called last; of a browser with ``requests``."""
    told = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    return [one["params"]["request"]["url"] for one in told if one["method"] == "Network.requestWillBeSent"]
