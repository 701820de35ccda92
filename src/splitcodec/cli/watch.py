"""The command of a device in the field: watch."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from splitcodec.cli.interrupts import INTERRUPTED

import typer

from splitcodec.cli.limits import ForceFitOption, MaxBytesOption, MinChangeOption, RefreshOption
from splitcodec.cli.show import (
    DEFAULT_BUNDLE,
    BundleOption,
    CodingOption,
    EncoderOption,
    JsonOption,
    LevelOption,
    ScoreOption,
    ThreadsOption,
    TimeoutOption,
    TopOption,
    check_finite,
    check_tasks,
    checked_encoder,
    complain,
    task_names,
)
from splitcodec.cli.tokens import TokenFileOption, token_reader
from splitcodec.cli.watching import Shown, say

if TYPE_CHECKING:
    from splitcodec.device.budget import RateKeeper
    from splitcodec.device.client import Device, Encoded
    from splitcodec.device.placed import Letterbox
    from splitcodec.device.source import Source
    from splitcodec.device.still import Still
    from splitcodec.device.view import Fit
    from splitcodec.wire.request import Wanted


def add_to(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command("watch", rich_help_panel="On the device")(watch)


def watch(
    url: Annotated[
        str, typer.Option("--url", metavar="URL", help="The edge: http://10.0.0.2:8080, mqtt://HOST/TOPIC, udp://HOST.")
    ],
    folder: Annotated[Path | None, typer.Argument(metavar="DIR", help="Folder of pictures. Not with --camera.")] = None,
    camera: Annotated[
        str | None, typer.Option("--camera", metavar="C", help="Camera: a number, an address or a GStreamer pipeline.")
    ] = None,
    every: Annotated[
        float | None, typer.Option("--every", min=0.05, metavar="S", help="Seconds between its pictures (60).")
    ] = None,
    spool: Annotated[
        Path | None, typer.Option("--spool", metavar="DIR", help="Where packets wait. Default: DIR/.splitcodec.")
    ] = None,
    max_spool_mb: Annotated[
        float, typer.Option("--max-spool-mb", min=0.01, metavar="N", help="Most that may wait, in 1,000,000 bytes.")
    ] = 64.0,
    when_full: Annotated[
        str, typer.Option("--when-full", metavar="POLICY", help="refuse, drop-oldest or drop-newest.")
    ] = "refuse",
    answers: Annotated[
        Path | None, typer.Option("--answers", metavar="FILE", help="JSON lines. Default: answers.jsonl in the spool.")
    ] = None,
    after: Annotated[
        str, typer.Option("--after", metavar="WHAT", help="keep, delete or move pictures that have their answer.")
    ] = "keep",
    min_change: MinChangeOption = None,
    refresh: RefreshOption = None,
    once: Annotated[bool, typer.Option("--once", help="Do what is there, and leave.")] = False,
    level: LevelOption = None,
    coding: CodingOption = None,
    max_bytes: MaxBytesOption = None,
    force_fit: ForceFitOption = False,
    kbit_per_s: Annotated[
        float | None,
        typer.Option(
            "--kbit-per-s", metavar="R", help="Average rate to keep; pictures wait where it leaves too little."
        ),
    ] = None,
    window_s: Annotated[
        float | None,
        typer.Option("--window-s", metavar="W", help="With --kbit-per-s: seconds over which it is averaged (10)."),
    ] = None,
    bundle: BundleOption = DEFAULT_BUNDLE,
    tasks: Annotated[str, typer.Option("--tasks", help="Comma-separated tasks of the bundle.")] = "classify",
    top: TopOption = None,
    score: ScoreOption = None,
    timeout: TimeoutOption = 10.0,
    poll: Annotated[float, typer.Option("--poll", min=0.05, metavar="S", help="Seconds between looks at DIR.")] = 1.0,
    settle: Annotated[
        float | None,
        typer.Option("--settle", min=0.0, metavar="S", help="Seconds without change that make a file whole (1)."),
    ] = None,
    token_file: TokenFileOption = None,
    encoder: EncoderOption = "tuned",
    threads: ThreadsOption = None,
    json_: JsonOption = False,
) -> None:
    """Encode pictures as they appear, keep packets until the edge has answered, write one line for each answer.

    Survives a link that is away, a full disk and a loss of power; see docs/field.md. The average rate is kept by the
    time at which pictures are encoded; a picture that has to wait stays where it is. With --json the status is printed,
    one object a line.
    """
    from splitcodec.device.budget import RateKeeper
    from splitcodec.device.client import Device
    from splitcodec.device.journal import Journal
    from splitcodec.device.links import Links
    from splitcodec.device.spool import LEDGER, Spool, check_policy
    from splitcodec.device.status import shown_address
    from splitcodec.device.watch import Watch
    from splitcodec.errors import SettingsError
    from splitcodec.wire.request import Wanted

    if force_fit and max_bytes is None and kbit_per_s is None:
        raise SettingsError("--force-fit: to what? Add --max-bytes or --kbit-per-s")
    if window_s is not None and kbit_per_s is None:
        raise SettingsError("--window-s means nothing without --kbit-per-s; add it, or leave --window-s out")
    check_finite(
        {
            "--min-change": min_change,
            "--refresh": refresh,
            "--max-spool-mb": max_spool_mb,
            "--every": every,
            "--poll": poll,
            "--settle": settle,
            "--timeout": timeout,
            "--kbit-per-s": kbit_per_s,
            "--window-s": window_s,
        }
    )
    check_policy(when_full)
    place = _spool(spool, answers=answers, folder=folder, camera=camera)
    every, settle = _times(every, settle, camera=camera, after=after)
    asking = Wanted(tuple(task_names(tasks)), top, score=score)
    shown, stop = Shown(json_=json_), threading.Event()
    keeper = None if kbit_per_s is None else RateKeeper(kbit_per_s, window_s=10.0 if window_s is None else window_s)
    with contextlib.ExitStack() as closing:
        links = Links(url, timeout_s=timeout, retries=0, token=token_reader(token_file, url=url))
        closing.callback(links.close)
        address = shown_address(links.asking(asking).url)
        source = _source(folder, camera=camera, every=every, after=after, settle=settle)
        closing.callback(source.close)
        device = Device(bundle, threads=threads, encoder=checked_encoder(encoder), coding=coding)
        still = _still(device, min_change, refresh)
        encode = _encoding(
            device, asking, level=level, max_bytes=max_bytes, force_fit=force_fit, keeper=keeper, stop=stop, still=still
        )
        packets = Spool(place)
        closing.callback(packets.close)
        journal = Journal(answers or place / "answers.jsonl", place / LEDGER)
        closing.callback(journal.close)
        if journal.unsure and len(packets):
            complain(journal.unsure)

        watching = Watch(
            encode=encode,
            send=links,
            source=source,
            spool=packets,
            journal=journal,
            max_bytes=int(max_spool_mb * 1e6),
            asking=asking,
            when_full=when_full,
            still=still,
            tell=lambda line: shown.line(line, watching.status),
        )
        closing.callback(shown.end, watching.status)
        got = closing.enter_context(_stopping(stop))
        poll_s = poll if camera is None else min(poll, every / 4)
        if once:
            watching.once(stop, poll_s=poll_s)
        else:
            what = folder if camera is None else shown_address(camera)
            say(f"watching {what} for {device.bundle.ident} at {address}, spool {place}")
            watching.run(stop, poll_s=poll_s)
    if signal.SIGINT in got:
        raise typer.Exit(INTERRUPTED)
    if once and watching.status.unfinished:
        raise typer.Exit(2)


def _spool(given: Path | None, *, answers: Path | None, folder: Path | None, camera: str | None) -> Path:
    """Return where packets wait; nothing is made yet.

    Raises SettingsError without a folder or a camera, or for both, OutputError for answers that lie below no folder.
    """
    from splitcodec.errors import OutputError, SettingsError
    from splitcodec.wire.durable import nearest

    if answers is not None and not (above := nearest(answers.parent)).is_dir():
        raise OutputError(f"--answers {answers}: {above} is a file; choose another --answers")
    if (folder is None) == (camera is None):
        raise SettingsError("expected a folder of pictures or --camera; give one of the two")
    if given is not None:
        return given
    if folder is None:
        raise SettingsError("no --spool DIR; with --camera, say where packets shall wait")
    return folder / ".splitcodec"


def _times(every: float | None, settle: float | None, *, camera: str | None, after: str) -> tuple[float, float]:
    """Return the seconds between a camera's pictures, and those that make a file whole.

    Raises SettingsError for what is not for this source.
    """
    from splitcodec.errors import SettingsError

    if every is not None and camera is None:
        raise SettingsError("--every means nothing without --camera; a folder is looked at every --poll seconds")
    if after != "keep" and camera is not None:
        raise SettingsError(f"--after {after} is for pictures in a folder; leave it out with --camera")
    if settle is not None and camera is not None:
        raise SettingsError(
            "--settle is for files in a folder, a camera's pictures are whole; leave it out with --camera"
        )
    return 60.0 if every is None else every, 1.0 if settle is None else settle


def _still(device: Device, least: float | None, refresh_s: float | None) -> Still:
    """Return what looks whether anything has changed. Raises SettingsError for --refresh alone."""
    from splitcodec.device.still import REFRESH_S, Still
    from splitcodec.errors import SettingsError

    if refresh_s is not None and least is None:
        raise SettingsError("--refresh means nothing without --min-change; add it, or leave --refresh out")
    gain_c = device.bundle.tables[0].gain_lc[device.checked_level(None)]
    return Still(gain_c, least=least or 0.0, refresh_s=REFRESH_S if refresh_s is None else refresh_s)


def _encoding(
    device: Device,
    asking: Wanted,
    *,
    level: int | None,
    max_bytes: int | None,
    force_fit: bool,
    keeper: RateKeeper | None,
    stop: threading.Event,
    still: Still,
) -> Callable[[Any], tuple[bytes, int, Letterbox] | None]:
    """Return what makes packets of pictures. Raises SettingsError, TaskError for what the bundle has not got."""
    from splitcodec.device.pace import Pace

    device.checked_level(level)
    check_tasks(device.bundle, asking.tasks)
    fit: Fit = "crop" if asking.tasks == ("classify",) else "letterbox"
    encoding = partial(device.encode_timed, level=level, fit=fit, look=still.look)
    limited: Callable[[Any], Encoded | None] = partial(encoding, max_bytes=max_bytes, force_fit=force_fit)
    if keeper is not None:
        limited = Pace(encoding, keeper, wait=stop.wait, max_bytes=max_bytes, force_fit=force_fit)

    def encode(picture: Any) -> tuple[bytes, int, Letterbox] | None:
        encoded = limited(picture)
        return None if encoded is None else (encoded.packet, encoded.level, encoded.place)

    return encode


def _source(folder: Path | None, *, camera: str | None, every: float, after: str, settle: float) -> Source:
    if camera is not None:
        from splitcodec.device.camera import Camera

        return Camera(camera, every_s=every)
    from splitcodec.device.source import Folder

    assert folder is not None  # noqa: S101 - `_spool` has refused neither, in words that mypy does not read
    return Folder(folder, after=after, settle_s=settle)


@contextlib.contextmanager
def _stopping(stop: threading.Event) -> Iterator[list[int]]:
    """Set `stop` when SIGTERM or SIGINT comes; yields the list of those that came."""
    got: list[int] = []

    def end(number: int, _: object) -> None:
        got.append(number)
        stop.set()

    before = {one: signal.signal(one, end) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield got
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
