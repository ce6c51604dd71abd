"""What a real browser makes of the server's rules: the token, and pages of others that try."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from asking import TOKEN
from browsing import Visit

from relume.monitor.edits import FILE
from relume.ui.server import running


@contextmanager
def elsewhere(text: str) -> Iterator[str]:
    """Another site with one page: another name for this machine is another site to a browser."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = f"<!doctype html><title>other</title>{text}".encode()
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://localhost:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_the_token_lets_a_browser_in_and_leaves_the_address(visit: Callable[..., Visit], root: Path) -> None:
    with running(root, token=TOKEN) as address:
        tab = visit(address.origin)
        tab.page.goto(f"{address.url}#/run/fashion")
        tab.page.wait_for_selector("main .view-run[data-mounted]")
        assert tab.page.url == f"{address.origin}/#/run/fashion"
        assert tab.page.evaluate("document.cookie") == ""  # no script can read it
        tab.page.reload()
        tab.page.wait_for_selector("main .view-run[data-mounted]")
        tab.open("runs")
        other = visit(address.origin)
        other.allow("401")
        other.page.goto(address.origin)
        assert "the token is its end" in other.page.inner_text("body")


def test_a_link_on_another_site_opens_the_page_that_was_let_in_before(visit: Callable[..., Visit], root: Path) -> None:
    with running(root, token=TOKEN) as address, elsewhere(f'<a href="{address.origin}/#/runs">runs</a>') as site:
        tab = visit(address.origin)
        tab.allow(site)
        tab.allow("401")
        tab.page.goto(address.url)
        tab.page.wait_for_selector("main .view-runs[data-mounted]")
        tab.page.goto(site)
        tab.page.click("a")
        tab.page.click("text=open it again")
        tab.page.wait_for_selector("main .view-runs[data-mounted]")


_TRIES = """
async ([origin, run]) => {
  const tried = {};
  const attempt = async (name, work) => {
    try { tried[name] = await work(); } catch (error) { tried[name] = "refused"; }
  };
  const loads = (element) => new Promise((done) => {
    element.onload = () => done("loaded");
    element.onerror = () => done("refused");
    document.body.append(element);
  });
  const make = (tag, values) => Object.assign(document.createElement(tag), values);
  await attempt("read", async () => (await fetch(`${origin}/api/runs`)).text());
  await attempt("read blindly", async () => (await (await fetch(`${origin}/api/runs`, { mode: "no-cors" })).text()) || "refused");
  const body = JSON.stringify({ notes: "evil" });
  const edit = `${origin}/api/run/${run}/edit`;
  await attempt("post", async () => (await fetch(edit, { method: "POST", body, headers: { "content-type": "application/json" } })).status);
  await attempt("post blindly", async () => (await fetch(edit, { method: "POST", mode: "no-cors", body })).status || "refused");
  await attempt("beacon", async () => {
    navigator.sendBeacon(edit, new Blob([body], { type: "text/plain" }));
    return "refused";
  });
  await attempt("script", () => loads(make("script", { src: `${origin}/static/app.js` })));
  await attempt("style", () => loads(make("link", { rel: "stylesheet", href: `${origin}/static/style.css` })));
  await attempt("picture", () => loads(make("img", { src: `${origin}/api/runs` })));
  await attempt("stream", () => new Promise((done) => {
    const events = new EventSource(`${origin}/api/events`);
    events.onopen = () => done("opened");
    events.onerror = () => { events.close(); done("refused"); };
  }));
  await attempt("frame", async () => {
    await loads(make("iframe", { src: origin }));
    return "refused";
  });
  return tried;
}
"""


def test_a_page_of_another_site_can_neither_read_nor_change_nor_embed(visit: Callable[..., Visit], root: Path) -> None:
    with running(root) as address, elsewhere("<p>hello</p>") as site:
        tab = visit(site)
        for expected in (address.origin, "Failed to load resource", "blocked", "ERR_"):
            tab.allow(expected)
        tab.page.goto(site)
        tried = tab.page.evaluate(_TRIES, [address.origin, "fashion"])
        assert set(tried.values()) == {"refused"}, tried
        assert not tab.page.frames[1].url.startswith(
            address.origin
        )  # the browser shows its own error there, or nothing yet
    assert not (root / "fashion" / FILE).exists()


def test_a_form_of_another_site_changes_nothing(visit: Callable[..., Visit], root: Path) -> None:
    with running(root) as address:
        target = f"{address.origin}/api/run/fashion/edit"
        form = f"""<form method="post" enctype="text/plain" action="{target}"><input name='{{"notes":"evil","a":"' value='"}}'></form>"""
        with elsewhere(f"{form}<button onclick='document.forms[0].submit()'>go</button>") as site:
            tab = visit(site)
            tab.allow(address.origin)
            tab.page.goto(site)
            tab.page.click("button")
            tab.page.wait_for_url(f"{target}")
            assert "Only relume's own page may" in tab.page.inner_text("body")
    assert not (root / "fashion" / FILE).exists()
