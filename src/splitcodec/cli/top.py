"""The command `top`: an edge watched from a terminal, through what its /metrics says."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from splitcodec.cli.show import JsonOption, check_finite, legible, print_json
from splitcodec.cli.tokens import TokenFileOption, read_token

if TYPE_CHECKING:
    from rich.console import Group

    from splitcodec.edge.scrape import Scrape


def add_to(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command("top", rich_help_panel="At the edge")(top)


def top(
    url: Annotated[str, typer.Option("--url", metavar="URL", help="The edge server, such as http://10.0.0.2:8080.")],
    every: Annotated[float, typer.Option("--every", min=0.2, metavar="S", help="Seconds between two looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look once (what it did since it started) and leave.")] = False,
    token_file: TokenFileOption = None,
    json_: JsonOption = False,
) -> None:
    """Watch an edge server: answers a second, queue, batches, stages, refusals. Ctrl+C ends it.

    --once --json is for scripts. --json alone prints one object a line, for ever.
    """
    import json

    from rich.console import Console
    from rich.live import Live

    from splitcodec.edge.scrape import summary

    check_finite({"--every": every})
    look = _look_at(url, token=read_token(token_file))
    now = look()
    if once and json_:
        print_json(summary(now))
    elif once:
        Console().print(_view(url, summary(now)))
    elif json_:
        while True:
            time.sleep(every)
            before, now = now, look()
            print(json.dumps(summary(now, before)), flush=True)
    else:
        with Live(_view(url, summary(now)), console=Console(), auto_refresh=False, screen=False) as live:
            while True:
                time.sleep(every)
                before, now = now, look()
                live.update(_view(url, summary(now, before)), refresh=True)


def _look_at(url: str, *, token: str | None) -> Callable[[], Scrape]:
    from splitcodec.device.link import page
    from splitcodec.edge.scrape import parse_metrics

    metrics = page(f"{url.rstrip('/')}/metrics", token=token)
    return lambda: parse_metrics(metrics(), when=time.monotonic())


def _view(url: str, facts: dict[str, Any]) -> Group:
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    from splitcodec.device.status import shown_address

    since = f"last {facts['seconds']:.1f} s" if facts["seconds"] else "since it started"
    state = "[green]ready[/]" if facts["ready"] else "[red]not ready[/]"
    sums = Table(show_header=False, box=None)
    sums.add_column(style="bold")
    sums.add_column(justify="right")
    answers, rate = sum(facts["answers"].values()), facts["answers_per_s"]
    sums.add_row("answers", f"{answers:,}" + (f"  ({rate:,.1f} /s)" if rate is not None else ""))
    for bundle, count in facts["answers"].items():
        sums.add_row(f"  {escape(legible(bundle))}", f"{count:,}")
    sums.add_row("received, sent", f"{facts['received_bytes']:,} B, {facts['sent_bytes']:,} B")
    sums.add_row("given again", f"{facts['replays']:,}")
    sums.add_row("queue, batches running", f"{facts['queue_depth']}, {facts['batches_running']}")
    sums.add_row("packets a batch", "-" if facts["batch_mean"] is None else f"{facts['batch_mean']:.2f}")
    sums.add_row("processor, memory", f"{facts['cpu_s']:.1f} s, {facts['memory_bytes'] / 2**20:,.0f} MiB")
    stages = Table("stage", "times", "mean ms", "95 % below ms", title_justify="left", box=None)
    for stage, one in facts["stages_ms"].items():
        numbers = ("-" if one[key] is None else f"{one[key]:,.2f}" for key in ("mean", "p95_below"))
        stages.add_row(stage, f"{one['count']:,}", *numbers)
    counts = Table("status or refusal", "times", title_justify="left", box=None)
    for name, count in {**facts["requests"], **facts["refusals"]}.items():
        counts.add_row(escape(legible(name)), f"{count:,}")
    return Group(f"[bold]{escape(legible(shown_address(url)))}[/]  {state}  {since}", sums, "", stages, "", counts)
