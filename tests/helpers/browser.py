"""Debian's Chromium, driven by Playwright, and pages that note whatever goes wrong on them. No test lives here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

SERVER = Path(__file__).with_name("page_server.py")
# A machine under load draws slowly; nothing here waits longer than it must.
DEADLINE_MS = 30_000


def chromium_or_skip() -> str:
    """Return Debian's Chromium; without one skip, and fail where CI promised one."""
    found = shutil.which("chromium")
    if found is None and os.environ.get("CI") == "true":
        pytest.fail("no chromium: apt-get install chromium")
    if found is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    return found


@contextmanager
def a_browser() -> Iterator[Browser]:
    """Start Chromium without a screen."""
    program = chromium_or_skip()
    with sync_playwright() as playwright:
        # Root needs --no-sandbox; the pages are our own.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """One page of one context, and what was said on its console, asked of others, or popped up."""

    def __init__(self, browser: Browser, url: str, **options: Any) -> None:
        self.url = url
        self.faults: list[str] = []
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        self.context.set_default_timeout(DEADLINE_MS)
        self.page: Page = self.context.new_page()
        self.page.on("console", lambda said: self._note("console", f"{said.type}: {said.text}"))
        self.page.on("pageerror", lambda error: self._note("error", str(error)))
        self.page.on("dialog", self._dialog)
        self.page.on(
            "request",
            lambda request: None if request.url.startswith(url) else self._note("request", request.url),
        )

    def _note(self, kind: str, text: str) -> None:
        self.faults.append(f"{kind} on {self.page.url}: {text[:300]}")

    def _dialog(self, dialog: Any) -> None:
        self._note("dialog", dialog.message)
        dialog.dismiss()

    def open(self, path: str) -> Page:
        """Go to a path of the site and wait until it is drawn."""
        answer = self.page.goto(self.url + path)
        assert answer is not None
        assert answer.status == 200, f"{path}: {answer.status}"
        return self.page

    def close(self) -> None:
        """Close page and context."""
        self.context.close()


@contextmanager
def a_visit(browser: Browser, url: str, **options: Any) -> Iterator[Visit]:
    """Open a context; at its end nothing may have gone wrong on its pages."""
    visit = Visit(browser, url, **options)
    try:
        yield visit
        assert visit.faults == []
    finally:
        visit.close()


class PageServer:
    """The process that serves a made-up federation."""

    def __init__(self, what: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(SERVER), what], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.url = self._process.stdout.readline().strip()
        assert self.url.startswith("http://127.0.0.1:")

    def order(self, status: str) -> None:
        """Give the second node a status."""
        self._process.stdin.write(f"{status}\n")
        self._process.stdin.flush()

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


@contextmanager
def page_servers() -> Iterator[Any]:
    """Give a function that serves a federation, one process for each."""
    running: dict[str, PageServer] = {}

    def serve(what: str) -> PageServer:
        if what not in running:
            running[what] = PageServer(what)
        return running[what]

    try:
        yield serve
    finally:
        for server in running.values():
            server.close()
