"""Which addresses are listened on, and by how many."""

from __future__ import annotations

import errno
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("fastapi")

from splitcodec import Edge
from splitcodec.edge.server import BackgroundServer, check_guarded, create_app, read_settings
from splitcodec.edge.sockets import listen, tls_context, url_of
from splitcodec.errors import SettingsError
from splitcodec.wire.bundle import Bundle


def ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


LOOK_UP = socket.getaddrinfo
needs_ipv6 = pytest.mark.skipif(not ipv6(), reason="this machine has no IPv6")


@needs_ipv6
def test_every_address_of_ipv6_is_every_address_of_ipv4_too(tiny: Bundle) -> None:
    """`--host ::` was deaf to 127.0.0.1."""
    app = create_app(Edge(tiny, threads=1), read_settings({"insecure": True}))
    with BackgroundServer(app, host="::") as server:
        assert server.url == f"http://[::]:{server.port}"
        for host in ("127.0.0.1", "[::1]"):
            assert httpx.get(f"http://{host}:{server.port}/healthz", trust_env=False).status_code == 200


def named(*addresses: str) -> Any:
    """Return a look-up that knows these addresses under every name."""

    def look_up(_: str, *arguments: Any, **options: Any) -> list[Any]:
        return [entry for one in addresses for entry in LOOK_UP(one, *arguments, **options)]

    return look_up


@needs_ipv6
def test_a_name_is_listened_on_under_all_of_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--host localhost` was deaf under the address that came second."""
    monkeypatch.setattr(socket, "getaddrinfo", named("::1", "127.0.0.1", "::1"))
    opened = listen("localhost", 0)
    port = opened[0].getsockname()[1]
    assert [one.getsockname()[:2] for one in opened] == [("::1", port), ("127.0.0.1", port)]
    assert url_of(opened[0], tls=True) == f"https://[::1]:{port}"
    with pytest.raises(SettingsError, match=f"cannot listen on localhost:{port} .*in use"):
        listen("localhost", port)
    for one in opened:
        one.close()


def test_an_address_that_this_machine_does_not_have_is_passed_over_beside_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", named("192.0.2.1", "127.0.0.1"))
    (one,) = listen("both", 0)
    assert one.getsockname()[0] == "127.0.0.1"
    one.close()
    monkeypatch.setattr(socket, "getaddrinfo", named("192.0.2.1"))
    with pytest.raises(SettingsError, match=r"cannot listen on none:0 .*; choose another host or port"):
        listen("none", 0)


@needs_ipv6
def test_a_free_port_is_free_for_both_families(monkeypatch: pytest.MonkeyPatch) -> None:
    real, tries = socket.create_server, list[int]()

    def taken(address: Any, *, family: int, backlog: int) -> socket.socket:
        if family == socket.AF_INET:
            tries.append(address[1])
            if len(tries) < 3:
                raise OSError(errno.EADDRINUSE, "in use")
        return real(address, family=family, backlog=backlog)

    monkeypatch.setattr(socket, "create_server", taken)
    first, second = listen("::", 0)
    assert first.getsockname()[1] == second.getsockname()[1] == tries[2]
    for one in (first, second):
        one.close()


def test_room_comes_back_when_connections_close() -> None:
    (one,) = listen("127.0.0.1", 0, most=2)
    one.settimeout(5)
    with one:
        clients = [socket.create_connection(one.getsockname()) for _ in range(4)]
        taken = [one.accept()[0] for _ in range(2)]
        with pytest.raises(ConnectionAbortedError, match="too many"):
            one.accept()
        assert clients[2].recv(1) == b""
        taken[0].close()
        taken.append(one.accept()[0])
        for other in (*clients, *taken):
            other.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "no-such-host.invalid"])
def test_a_public_address_needs_a_token(host: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--insecure"):
        check_guarded(read_settings({"host": host}))
    for excuse in ({"tokens": "t" * 20}, {"tokens_file": tmp_path}, {"insecure": True}):
        check_guarded(read_settings({"host": host, **excuse}))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_does_not(host: str) -> None:
    check_guarded(read_settings({"host": host}))


def test_the_address_that_is_told_has_its_zone() -> None:
    class LinkLocal(socket.socket):
        def getsockname(self) -> tuple[str, int, int, int]:
            return "fe80::1", 8080, 0, 2

    with LinkLocal(socket.AF_INET6 if ipv6() else socket.AF_INET) as one:
        assert url_of(one) == "http://[fe80::1%2]:8080"


def test_tls_files_that_are_none_are_refused(tiny: Bundle, tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("not PEM")
    with pytest.raises(SettingsError, match="come together"):
        read_settings({"tls_cert": tmp_path / "cert.pem"})
    for cert in (tmp_path / "cert.pem", tmp_path / "nowhere"):
        settings = read_settings({"port": 0, "tls_cert": cert, "tls_key": cert})
        with pytest.raises(SettingsError, match="both PEM"):
            tls_context(settings)
