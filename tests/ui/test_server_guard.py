"""Who gets an answer: requests as a hostile page, or a person at a bare socket, would send them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from asking import TOKEN, Answer, ask, post, send

import relume
from relume.ui.server import Address, running
from relume.ui.server.guard import hosts_of
from relume.ui.server.page import files


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("guarded") / "runs"
    with relume.Run("fashion", root=root, quiet=True) as run:
        run.log({"train/loss": 0.5}, step=1)
    (root.parent / "secret.json").write_text('{"secret": 1}')
    (root / "beside.txt").write_text("no run")
    return root


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[Address]:
    with running(root) as address:
        yield address


@pytest.fixture(scope="module")
def locked(root: Path) -> Iterator[Address]:
    with running(root, token=TOKEN) as address:
        yield address


def _is_protected(answer: Answer) -> bool:
    headers = answer.headers
    return (
        headers["x-content-type-options"] == "nosniff"
        and headers["x-frame-options"] == "DENY"
        and headers["referrer-policy"] == "no-referrer"
        and headers["cross-origin-resource-policy"] == "same-origin"
        and headers["cross-origin-opener-policy"] == "same-origin"
        and headers["content-security-policy"].startswith("default-src 'none'")
        and "frame-ancestors 'none'" in headers["content-security-policy"]
        and "server" not in headers
        and not any(name.startswith("access-control-") for name in headers)
    )


@pytest.mark.parametrize("target", ["/", "/api/runs", "/static/app.js", "/nothing", "/api/run/none", "/api/series"])
def test_every_answer_tells_the_browser_to_trust_nobody_else(server: Address, target: str) -> None:
    answer = ask(server, target)
    assert _is_protected(answer)
    assert answer.headers["cache-control"] == ("no-cache" if "static" in target else "no-store")


def test_the_page_runs_only_its_own_scripts(server: Address) -> None:
    first, second = ask(server, "/"), ask(server, "/")
    assert first.status == 200
    nonce = re.search(r"script-src 'self' 'nonce-([\w-]{20,})'", first.headers["content-security-policy"])[1]
    scripts = re.findall(rb"<script([^>]*)>", first.body)
    assert scripts and all(b'src="static/' in one or nonce.encode() in one for one in scripts)
    assert first.headers["content-security-policy"] != second.headers["content-security-policy"]
    assert b"http:" not in first.body and b"https:" not in first.body


# --------------------------------------------------------------------------------------------------------------- hosts


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "localhost:8080", "[::1]:6060", "LOCALHOST:1", "127.8.8.8:80"]
)
def test_names_of_this_machine_are_answered_on_any_port_as_tunnels_change_it(server: Address, host: str) -> None:
    assert ask(server, "/api/runs", host=host).status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:6060", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "0.0.0.0",
     "localhost@evil.example", "[::1]evil", "localhost:6060:1", "127.0.0.1/", "2130706433", "", "localhost evil"],
)  # fmt: skip
@pytest.mark.parametrize("target", ["/", "/api/runs", "/static/app.js", "/api/events"])
def test_other_names_are_refused_as_a_rebound_one_would_be(server: Address, host: str, target: str) -> None:
    answer = ask(server, target, host=host)
    assert answer.status in (400, 421)
    assert b"fashion" not in answer.body


def test_a_request_names_one_host(server: Address) -> None:
    assert ask(server, "/", host=None).status == 400
    assert send(server, b"GET / HTTP/1.0\r\n\r\n").status == 421
    twice = b"GET / HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\nconnection: close\r\n\r\n"
    assert send(server, twice).status == 400


# --------------------------------------------------------------------------------------------------------------- paths


@pytest.mark.parametrize(
    "target",
    [
        "/../secret.json",
        "/static/../app.py",
        "/static/..%2f..%2fapp.py",
        "/static/%2e%2e/%2e%2e/assets.py",
        "/static/%2E%2E%2Fassets.py",
        "/static//etc/passwd",
        "/static/%2fetc/passwd",
        "/static/..\\assets.py",
        "/static/%5c..%5cassets.py",
        "/static/app.js%00.css",
        "/static/./app.js",
        "/static/server/app.py",
        "/static/index.html",
        "/static/",
        "/static/vendor",
        "/api/run/..",
        "/api/run/.",
        "/api/run/%2e%2e",
        "/api/run/..%2fsecret",
        "/api/run/../../secret.json",
        "/api/run/%2e%2e/media/1-1-1/..%2f..%2frun.json",
        "/api/run/fashion%00",
        "/api/run/fashion%2f..%2ffashion",
        "/api/run/beside.txt",
        "/api/run/fashion%0d%0ax:1",
        "/api/run/%ff%fe",
        "/api/run/" + "a" * 5000,
        "/api/run/" + "a" * 300,
        "//api/runs",
        "http://127.0.0.1/api/runs",
        "*",
    ],
)
def test_no_path_leads_out_of_the_page_or_the_root(server: Address, target: str) -> None:
    answer = ask(server, target)
    assert answer.status in (400, 404, 414), answer.body[:200]
    assert b"secret" not in answer.body and b"import" not in answer.body and b"root:" not in answer.body


@pytest.mark.parametrize(
    "name", ["..", ".", "", "/etc", "../runs/fashion", "fashion/", "fashion/.", "a\\b", "beside.txt", "\0"]
)
def test_no_name_in_a_query_leads_out_of_the_root(server: Address, name: str) -> None:
    from urllib.parse import quote

    answer = ask(server, f"/api/series?metric=train%2Floss&run={quote(name, safe='')}")
    assert answer.status in (400, 404), answer.body[:200]


def test_a_link_in_the_root_counts_where_it_leads_to_a_run(tmp_path: Path, root: Path) -> None:
    linked = tmp_path / "linked"
    linked.mkdir()
    (tmp_path / "elsewhere" / "journal").mkdir(parents=True)
    (linked / "outside").symlink_to(tmp_path / "elsewhere")
    (linked / "known").symlink_to(root / "fashion")
    with running(linked) as address:
        assert ask(address, "/api/run/outside").status == 404
        assert ask(address, "/api/run/known").status == 200


def test_only_the_pages_own_files_are_given(server: Address) -> None:
    for name in files():
        answer = ask(server, f"/static/{name}")
        assert answer.status == 200
        assert answer.headers["content-type"].startswith("text/javascript" if name.endswith(".js") else "text/css")


def test_a_browser_keeps_a_file_only_under_the_address_of_its_content(server: Address) -> None:
    address = re.search(rb'src="(static/[\w./]+\.js\?[0-9a-f]+)"', ask(server, "/").body)[1].decode()
    assert "immutable" in ask(server, f"/{address}").headers["cache-control"]
    assert ask(server, "/static/app.js?123").headers["cache-control"] == "no-cache"


def test_addresses_without_end_are_refused(server: Address) -> None:
    assert ask(server, "/api/series?metric=" + "a" * 62_000).status in (400, 414)
    assert ask(server, "/?" + "a" * 200_000).status in (0, 400, 414)
    assert ask(server, "/").status == 200


def test_bytes_that_are_no_request_get_a_refusal(server: Address) -> None:
    assert send(server, b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n").status == 400
    assert send(server, b"GET /\xff HTTP/1.1\r\nhost: localhost\r\n\r\n").status == 400


# --------------------------------------------------------------------------------------------------- what other pages send


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "FOO"])
def test_other_methods_are_refused(server: Address, method: str) -> None:
    assert ask(server, "/api/run/fashion/edit", method).status == 405


@pytest.mark.parametrize("target", ["/", "/api/runs", "/api/events", "/static/app.js", "/api/run/fashion"])
def test_what_is_read_cannot_be_posted_to(server: Address, target: str) -> None:
    assert post(server, target, {}).status == 405


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_other_sites_can_neither_read_nor_embed(server: Address, site: str) -> None:
    assert ask(server, "/api/runs", sec_fetch_site=site).status == 403
    assert ask(server, "/static/app.js", sec_fetch_site=site).status == 403
    assert ask(server, "/", sec_fetch_site=site).status == 200  # a link to the page is a link


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://localhost:1"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": None}, 403),
        ({"origin": "file://"}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "same-site"}, 403),
        ({"content_type": "text/plain"}, 415),
        ({"content_type": None}, 415),
        ({"content_type": "application/x-www-form-urlencoded"}, 415),
        ({"host": "evil.example"}, 421),
    ],
)
def test_other_sites_can_change_nothing(
    server: Address, root: Path, headers: dict[str, str | None], status: int
) -> None:
    assert post(server, "/api/run/fashion/edit", {"notes": "evil"}, **headers).status == status
    assert not (root / "fashion" / "edits.json").exists()


def test_what_is_sent_has_an_end(server: Address, root: Path) -> None:
    assert post(server, "/api/run/fashion/edit", b'{"notes": "' + b"a" * 70_000 + b'"}').status == 413
    chunked = {"content_length": None, "transfer_encoding": "chunked"}
    piece = b"2000\r\n" + b" " * 0x2000 + b"\r\n"
    assert post(server, "/api/run/fashion/edit", piece * 9 + b"0\r\n\r\n", **chunked).status in (0, 413)
    assert not (root / "fashion" / "edits.json").exists()


# --------------------------------------------------------------------------------------------------------------- token


@pytest.mark.parametrize("target", ["/", "/api/runs", "/static/app.js", "/api/events", "/api/run/fashion", "/nothing"])
@pytest.mark.parametrize(
    "headers",
    [{}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {TOKEN}"}, {"authorization": "Bearer"},
     {"cookie": "relume=wrong"}, {"cookie": f"relume={TOKEN}"}, {"cookie": '"'}, {"authorization": "Bearer \xe4"}],
)  # fmt: skip
def test_without_the_token_nothing_is_given(locked: Address, target: str, headers: dict[str, str]) -> None:
    answer = ask(locked, target, **headers)
    assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert _is_protected(answer)
    assert b"relume ui" in answer.body and b"fashion" not in answer.body


@pytest.mark.parametrize("token", ["", "wrong", TOKEN[:-1], TOKEN + "a", TOKEN.upper(), f"{TOKEN}&token={TOKEN}"])
def test_a_wrong_token_in_the_address_opens_nothing(locked: Address, token: str) -> None:
    answer = ask(locked, f"/?token={token}")
    assert answer.status == 401 and "set-cookie" not in answer.headers


def test_the_token_opens_the_page_which_then_has_a_cookie(locked: Address) -> None:
    first = ask(locked, f"/?token={TOKEN}")
    assert first.status == 200 and b"history.replaceState" in first.body
    cookie, *how = [part.strip() for part in first.headers["set-cookie"].split(";")]
    assert set(how) == {"Path=/", "HttpOnly", "SameSite=Strict"}
    for target in ("/", "/api/runs", "/static/app.js"):
        assert ask(locked, target, cookie=f"other=1; {cookie}").status == 200
    assert ask(locked, "/api/runs", authorization=f"Bearer {TOKEN}").status == 200


def test_the_token_counts_in_no_other_address(locked: Address) -> None:
    assert ask(locked, f"/api/runs?token={TOKEN}").status == 401


def test_a_token_does_not_let_other_sites_in(locked: Address) -> None:
    bearer = f"Bearer {TOKEN}"
    assert ask(locked, "/api/runs", authorization=bearer, host="evil.example").status == 421
    assert ask(locked, "/api/runs", authorization=bearer, sec_fetch_site="cross-site").status == 403


def test_a_server_for_others_answers_under_the_names_of_its_machine() -> None:
    assert "gpu.example.org" in hosts_of("gpu.example.org")
    assert all(name == name.lower() for name in hosts_of("GPU"))
