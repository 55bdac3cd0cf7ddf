"""A Chromium without a screen, for tests and pictures of the viewer."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
PATIENCE_S = 60


def has_chromium() -> bool:
    """Whether a Chromium and its driver are on this machine."""
    return bool(_chromium() and shutil.which("chromedriver"))


def _chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return next((path for path in map(shutil.which, names) if path), None)


needs_chromium = pytest.mark.skipif(not has_chromium(), reason="no chromium and chromedriver here")


@contextmanager
def chromium(width: int = 1280, height: int = 800, *more: str) -> Iterator[Any]:
    """A driver of a browser with a fresh profile and a window of this size; ``more`` are flags."""
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = _chromium() or ""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (*FLAGS, *more, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
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
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def wait(driver: Any, script: str, *, patience_s: float = PATIENCE_S) -> Any:
    """Until a JavaScript expression is true; gives what it is."""
    from selenium.webdriver.support.ui import WebDriverWait

    ask: Callable[[Any], Any] = lambda one: one.execute_script(f"return {script}")  # noqa: E731
    return WebDriverWait(driver, patience_s, poll_frequency=0.05).until(ask, f"never came: {script}")


def wait_for_picture(driver: Any) -> None:
    """Until all tiles of the layers shown are there."""
    wait(driver, "window.world && world.loaded")
