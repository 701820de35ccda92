"""Commands of the edge's shore, and the demo that sees both: answer, serve, demo."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from splitcodec.cli.show import (
    DEFAULT_BUNDLE,
    BundleOption,
    JsonOption,
    LevelOption,
    ThreadsOption,
    check_finite,
    each,
    guesses,
    leave,
    legible,
    print_json,
    print_table,
    problem,
    task_names,
)
from splitcodec.errors import FileTooLarge, PacketError
from splitcodec.wire.answer import GUESSES, LEAST_SCORE, MOST_GUESSES

if TYPE_CHECKING:
    from splitcodec.edge.answer import Edge

_LARGEST_FILE = 1 << 20
_BATCHING, _GUARDING, _WATCHING, _GROWING = "Batching", "Guarding", "Watching", "Growing"

BundlesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--bundle",
        "-b",
        metavar="B",
        help=f"Bundles to answer with, or folders of them; a packet's fingerprint chooses. Default: {DEFAULT_BUNDLE}.",
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command("demo", rich_help_panel="Start here")(demo)
    app.command("answer", rich_help_panel="At the edge")(answer)
    app.command("serve", rich_help_panel="At the edge")(serve)
    app.command("demo-assets", rich_help_panel="At the edge")(demo_assets)


def answer(
    packets: Annotated[list[Path], typer.Argument(metavar="PACKET", readable=False, help="Packets made by `encode`.")],
    bundle: BundlesOption = None,
    top: Annotated[int, typer.Option("--top", min=1, max=MOST_GUESSES, help="Number of guesses.")] = GUESSES,
    score: Annotated[float, typer.Option("--score", min=0, max=1, help="Least score of boxes.")] = LEAST_SCORE,
    tasks: Annotated[str, typer.Option("--tasks", help="Comma-separated tasks of the bundle.")] = "classify",
    threads: ThreadsOption = None,
    json_: JsonOption = False,
) -> None:
    """Answer packets in this process, as the edge does.

    With --json one packet gives one object, several give a list; one that failed has "error" in place of its answer.
    """
    from splitcodec.edge.answer import Edge

    edge = Edge(*(bundle or [DEFAULT_BUNDLE]), threads=threads)
    wanted = task_names(tasks)
    edge.check_tasks(wanted)

    def one(path: Path) -> dict[str, Any]:
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                data = file.read(_LARGEST_FILE + 1)
        except OSError as error:
            raise PacketError(f"{path}: {error.strerror}; give a packet made by `splitcodec encode`") from None
        if len(data) > _LARGEST_FILE:  # also of a pipe, which has no size
            raise FileTooLarge(
                f"{path}: {max(size, len(data))} bytes, more than any packet has ({_LARGEST_FILE} at most); "
                "give a packet made by `splitcodec encode`"
            )
        return {**edge.answer(data, tasks=wanted, top=top, score=score), "packet": str(path)}

    done, failures = each(
        packets, one, what="answering", failed=lambda path, error: {"packet": str(path), **problem(error)}
    )
    if json_:
        print_json(done[0] if len(packets) == 1 else done)
    elif answered := [d for d in done if "error" not in d]:
        rows = [(d["packet"], guesses(d), d["level"], f"{sum(d['ms'].values()):.1f}") for d in answered]
        print_table(", ".join(b.ident for b in edge.bundles), ("packet", "answer", "level", "ms"), rows, left=2)
    leave(failures)


def serve(
    bundle: BundlesOption = None,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on. Default: 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option("--port", help="Port; 0 takes a free one. Default: 8080.")] = None,
    threads: ThreadsOption = None,
    workers: Annotated[
        int | None, typer.Option("--workers", help="Batches that run at once. Default: 2.", rich_help_panel=_BATCHING)
    ] = None,
    max_batch: Annotated[
        int | None, typer.Option("--max-batch", help="Most packets in a batch. Default: 16.", rich_help_panel=_BATCHING)
    ] = None,
    max_wait_ms: Annotated[
        float | None,
        typer.Option(
            "--max-wait-ms",
            help="Longest wait for company while another batch runs. Default: 0.",
            rich_help_panel=_BATCHING,
        ),
    ] = None,
    max_queue: Annotated[
        int | None,
        typer.Option(
            "--max-queue", help="Packets that may wait; more get 503. Default: 256.", rich_help_panel=_BATCHING
        ),
    ] = None,
    tokens_file: Annotated[
        Path | None,
        typer.Option(
            "--tokens-file",
            metavar="FILE",
            help="Bearer tokens, one a line; read again on change or SIGHUP. Or set SPLITCODEC_TOKENS.",
            rich_help_panel=_GUARDING,
        ),
    ] = None,
    insecure: Annotated[
        bool | None,
        typer.Option("--insecure", help="Listen on a public address without tokens.", rich_help_panel=_GUARDING),
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option("--tls-cert", metavar="PEM", help="Certificate chain.", rich_help_panel=_GUARDING)
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option("--tls-key", metavar="PEM", help="Its private key.", rich_help_panel=_GUARDING)
    ] = None,
    max_body_bytes: Annotated[
        int | None,
        typer.Option("--max-body-bytes", help="Largest packet taken. Default: 65536.", rich_help_panel=_GUARDING),
    ] = None,
    max_symbols: Annotated[
        int | None,
        typer.Option(
            "--max-symbols", help="Most symbols in a packet. Default: the bundle's limit.", rich_help_panel=_GUARDING
        ),
    ] = None,
    symbols_per_s: Annotated[
        float | None,
        typer.Option(
            "--symbols-per-s",
            help="Symbols a second for a client; 0: any. Default: 4000000.",
            rich_help_panel=_GUARDING,
        ),
    ] = None,
    requests_per_s: Annotated[
        float | None,
        typer.Option(
            "--requests-per-s", help="Requests a second for a client; 0: any. Default: 1000.", rich_help_panel=_GUARDING
        ),
    ] = None,
    log: Annotated[
        str | None,
        typer.Option("--log", metavar="text|json", help="How to log. Default: text.", rich_help_panel=_WATCHING),
    ] = None,
    demo: Annotated[
        bool,
        typer.Option("--demo", help="Also show a page at /demo to try it in a browser.", rich_help_panel=_WATCHING),
    ] = False,
    engine: Annotated[
        str,
        typer.Option(
            "--engine",
            metavar="uvicorn|ray",
            help="One process, or replicas by Ray Serve (extra ray).",
            rich_help_panel=_GROWING,
        ),
    ] = "uvicorn",
    replicas: Annotated[
        int | None,
        typer.Option("--replicas", min=1, help="Processes, with --engine ray. Default: 1.", rich_help_panel=_GROWING),
    ] = None,
) -> None:
    """Run the edge server: POST a packet to /v1/answer, get an answer.

    Also /v1/bundle, /healthz, /readyz and /metrics. Options but --bundle, --demo, --engine and --replicas may come from
    the environment too (SPLITCODEC_PORT, ...), some settings only from there: docs/server.md. Of bundles with one
    fingerprint the highest version answers.
    """
    from splitcodec.edge.answer import Edge, opened_at
    from splitcodec.edge.server import operator_settings, teller
    from splitcodec.edge.server import serve as run
    from splitcodec.errors import SettingsError
    from splitcodec.session import other_providers

    if engine not in ("uvicorn", "ray"):
        raise SettingsError(f"engine {engine!r}; expected uvicorn or ray")
    if engine == "uvicorn" and replicas is not None:
        raise SettingsError("--replicas needs --engine ray")
    if engine == "ray" and demo:
        raise SettingsError("--demo needs --engine uvicorn: the page is for one process")
    settings = operator_settings(
        {
            "host": host,
            "port": port,
            "threads": threads,
            "workers": workers,
            "max_batch": max_batch,
            "max_wait_ms": max_wait_ms,
            "max_queue": max_queue,
            "tokens_file": tokens_file,
            "insecure": insecure,
            "tls_cert": tls_cert,
            "tls_key": tls_key,
            "max_body_bytes": max_body_bytes,
            "max_symbols": max_symbols,
            "symbols_per_s": symbols_per_s,
            "requests_per_s": requests_per_s,
            "log": log,
        }
    )
    say = teller(settings)
    bundles = bundle or [DEFAULT_BUNDLE]
    loaded = ", ".join(one.ident for source in bundles for one in opened_at(source))  # a wrong one is refused at once
    loaded += f" on {others}" if (others := other_providers()) else ""
    if engine == "ray":
        from splitcodec.edge.grow import grow

        def told(url: str) -> None:
            say(f"serving {loaded} at {url}, {replicas or 1} replicas")

        grow(bundles, settings, replicas=replicas or 1, announce=told)
        return

    def opening() -> Edge:
        return Edge(*bundles, threads=settings.threads, max_symbols=settings.max_symbols)

    edge: Edge | Callable[[], Edge] = opening
    extend, way = None, ""
    if demo:
        from splitcodec.demo.assets import find_ort
        from splitcodec.demo.web import ROOT, mount

        edge, ort = opening(), find_ort()
        extend = partial(mount, edge=edge, ort=ort)
        way = "browsers encode" if ort else "the server encodes; after `splitcodec demo-assets` browsers do"

    def announce(url: str) -> None:
        say(f"serving {loaded} at {url}")
        if demo:
            say(f"the page: {url}{ROOT} ({way})")

    run(edge, settings, announce=announce, extend=extend, pages=(ROOT,) if demo else (), ends_process=True)


def demo_assets(
    tarball: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="The npm package's tarball. Default: ask npm for it.")
    ] = None,
) -> None:
    """Fetch onnxruntime-web once (14 MB, pinned by hash), so that the page of `serve --demo` encodes in the browser."""
    from splitcodec.demo.assets import PACKAGE, VERSION, fetch_ort

    print(f"{PACKAGE} {VERSION} is in {fetch_ort(tarball)}")


def demo(
    bundle: BundleOption = DEFAULT_BUNDLE,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the page.")] = Path("demo-out"),
    kbit_per_s: Annotated[float, typer.Option("--kbit-per-s", min=0.1, help="Rate of the simulated link.")] = 37.5,
    rtt_ms: Annotated[float, typer.Option("--rtt-ms", min=0.0, help="Its round-trip time.")] = 60.0,
    level: LevelOption = None,
    json_: JsonOption = False,
) -> None:
    """Show the whole trip: photographs, packets, a slow link, a server on loopback, answers; and the same as a page."""
    from splitcodec.demo.run import run_demo
    from splitcodec.demo.trip import Trip

    check_finite({"--kbit-per-s": kbit_per_s, "--rtt-ms": rtt_ms})

    def tell(trip: Trip) -> None:
        if not json_:
            print("\n".join(map(legible, trip.lines())), flush=True)  # labels are the bundle's

    if not json_:
        print(f"{bundle} over a simulated link of {kbit_per_s:g} kbit/s, round trip {rtt_ms:g} ms", flush=True)
    result = run_demo(bundle, out=out, level=level, kbit_per_s=kbit_per_s, rtt_ms=rtt_ms, on_trip=tell)
    if json_:
        print_json(result.to_json())
        return
    if result.compared:
        print(result.sums())
    print(f"The same as a page, with the pictures: {result.page}")
