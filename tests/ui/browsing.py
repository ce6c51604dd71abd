"""The page in a real browser, watched: what it complains of, and whom it asks."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import ExitStack
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, sync_playwright

WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]


class Chromium:
    """The installed browser, started when it is first asked for.

    Playwright drives it with an event loop that looks as if it ran in this thread between two calls. Other tests of this
    process begin loops of their own: :meth:`hide` takes it out of sight, :meth:`show` brings it back.
    """

    def __init__(self) -> None:
        self._open = ExitStack()
        self._loop: Any = None
        self._browser: Browser | None = None

    def show(self) -> Browser:
        if self._browser is None:
            program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
            if program is None:
                pytest.skip("needs Debian's chromium, or Chrome")
            playwright = self._open.enter_context(sync_playwright())
            self._browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
            self._open.callback(self._browser.close)
            self._loop = asyncio._get_running_loop()
        asyncio._set_running_loop(self._loop)
        return self._browser

    def hide(self) -> None:
        asyncio._set_running_loop(None)

    def close(self) -> None:
        if self._browser is not None:
            self.show()
            self._browser = None
            self._open.close()
        self.hide()


class Visit:
    """One tab, and what went wrong in it.

    Attributes:
        page: playwright's.
        complaints: errors of the console, of scripts and of requests, and requests to other places.
    """

    def __init__(self, context: BrowserContext, origin: str, allowed: tuple[str, ...] = ()) -> None:
        self.page: Page = context.new_page()
        self.origin, self.complaints, self._allowed = origin, list[str](), list(allowed)
        self.page.set_default_timeout(30_000)
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self._complain(f"script: {error}"))
        self.page.on("dialog", self._dialog)
        self.page.on("request", self._request)
        self.page.on("requestfailed", self._failed)

    def allow(self, part: str) -> None:
        """Complaints with ``part`` in them belong to this test."""
        self._allowed.append(part)
        self.complaints = [text for text in self.complaints if part not in text]

    def open(self, view: str, **query: Any) -> Page:
        """Go to ``"charts"`` or ``"run/NAME"`` with what the link says further, and wait until it is there."""
        place, _, subject = view.partition("/")
        path = f"#/{place}" + (f"/{quote(subject, safe='')}" if subject else "")
        path += f"?{urlencode(query, doseq=True)}" if query else ""
        self.page.goto("about:blank")  # so that each visit loads the page anew
        self.page.goto(f"{self.origin}/{path}")
        self.page.wait_for_selector(f"main .view-{place}[data-mounted]")
        return self.page

    def accessibility(self) -> list[str]:
        """What axe-core objects to, a line each."""
        self.page.evaluate(AXE_SCRIPT)
        asked = {"runOnly": {"type": "tag", "values": WCAG}, "resultTypes": ["violations"]}
        found = self.page.evaluate("asked => axe.run(asked)", asked)
        return [
            f"{one['id']}: {node['target']} {node['html'][:160]} {node['failureSummary'][:300]}"
            for one in found["violations"]
            for node in one["nodes"][:5]
        ]

    def overflow(self) -> list[str]:
        """Whether the page is wider than the window, and what makes it so."""
        return self.page.evaluate("""() => {
          const width = document.documentElement.clientWidth;
          if (document.documentElement.scrollWidth <= width) return [];
          const scrolls = (element) => element && (["auto", "scroll", "hidden", "clip"].includes(getComputedStyle(element).overflowX)
            || scrolls(element.parentElement));
          return [`${document.documentElement.scrollWidth} > ${width}`, ...[...document.querySelectorAll("body *")]
            .filter((one) => one.getBoundingClientRect().right > width + 1 && !scrolls(one.parentElement))
            .map((one) => `${one.tagName}.${one.getAttribute("class")}`).slice(0, 8)];
        }""")

    def foreign_elements(self) -> list[str]:
        """What of the text of others has become more than text."""
        return self.page.evaluate("""() => [
          ...[...document.querySelectorAll("script")].filter((one) => !one.src && !(one.nonce && one.closest("head"))),
          ...document.querySelectorAll("[onerror], [onload], [onclick], iframe, object, embed, img[src*='evil'], a[href^='javascript']"),
        ].map((one) => one.outerHTML.slice(0, 200)).concat(window.alerted === undefined ? [] : [`alerted ${window.alerted}`])""")

    def _complain(self, text: str) -> None:
        if not any(part in text for part in self._allowed):
            self.complaints.append(text)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self._complain(f"console: {message.text} ({message.location.get('url')})")

    def _dialog(self, dialog: Any) -> None:
        self._complain(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _request(self, request: Request) -> None:
        if not request.url.startswith((f"{self.origin}/", "data:", "blob:", "about:")):
            self._complain(f"asked another place: {request.url}")

    def _failed(self, request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # the page itself was left, or does not need it any more
            self._complain(f"request: {request.url} {request.failure}")
