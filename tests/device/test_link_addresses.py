"""What a link says of addresses and proxies: no password, no traceback."""

from __future__ import annotations

import base64
import sys

import pytest

from splitcodec.device.link import http, page
from splitcodec.errors import LinkDown, LinkGarbled, LinkRefused, SettingsError
from splitcodec.wire.answer import MAX_BYTES
from tests.device import test_link
from tests.device.test_link import Edge, Reply, dead_url, problem

edge = test_link.edge
BASIC = "Basic " + base64.b64encode(b"me:s3cret").decode()


def with_password(url: str) -> str:
    return url.replace("://", "://me:s3cret@")


@pytest.mark.parametrize(
    "reply",
    [
        problem(400, "level 9"),
        (404, {"content-type": "text/html"}, b""),
        (307, {"location": "http://elsewhere.example"}, b""),
        (200, {"content-encoding": "gzip"}, b"\x1f\x8b"),
        (200, {}, b" " * (MAX_BYTES + 1)),
        (503, {}, b""),
    ],
)
def test_a_password_in_the_address_is_sent_and_never_said(edge: Edge, reply: Reply) -> None:
    edge.replies = [reply]
    with http(with_password(edge.url), retries=0) as link:
        assert link.url == edge.url
        with pytest.raises((LinkRefused, LinkGarbled, LinkDown), match=edge.url) as caught:
            link(b"x")
    assert edge.seen[0][1]["authorization"] == BASIC
    assert "s3cret" not in str(caught.value)


def test_who_is_asked_for_a_token_is_told_where_it_goes(edge: Edge) -> None:
    edge.replies = [problem(401, "a bearer token is needed"), problem(400, "level 9")]
    with http(edge.url, retries=0) as link:
        with pytest.raises(LinkRefused, match=r"needed; give --token-file, or set SPLITCODEC_TOKEN"):
            link(b"x")
        with pytest.raises(LinkRefused, match=r"level 9$"):
            link(b"x")


def test_a_page_does_not_say_the_password_either(edge: Edge) -> None:
    edge.replies = [(200, {}, b"one"), (503, {}, b"")]
    get = page(with_password(edge.url))
    assert get() == "one"
    assert edge.seen[0][1]["authorization"] == BASIC
    with pytest.raises(LinkRefused, match=f"^{edge.url}") as refusal:
        get()
    with pytest.raises(LinkDown) as down:
        page(with_password(dead_url()))()
    assert "s3cret" not in str(refusal.value) + str(down.value)


@pytest.mark.parametrize(
    "url", ["http://me:s3cret@", "ftp://me:s3cret@host", "http://me:s3cret/@h", "http://s3cret@a..b"]
)
def test_a_wrong_address_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(SettingsError, match="http://host:8080") as caught:
        http(url)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("proxy", "hint"),
    [
        ("socks5://127.0.0.1:9", "pip install socksio"),
        ("gopher://127.0.0.1:9", "expected http://host:port"),
        ("http://me:s3cret/@127.0.0.1:9", "expected http://host:port"),
    ],
)
def test_a_proxy_of_no_use_in_the_environment_is_named(proxy: str, hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(SettingsError, match=f"ALL_PROXY.*{hint}") as caught:
        http("http://127.0.0.1:8080")
    assert "s3cret" not in str(caught.value)
