"""Commands of the device's shore: encode, ask."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from splitcodec.cli.drawn import check_draw, write_drawing
from splitcodec.cli.limits import (
    Allowances,
    DeadlineOption,
    ForceFitOption,
    FpsOption,
    Limits,
    MaxBytesOption,
    RateOption,
    RoundTripOption,
    WindowOption,
)
from splitcodec.cli.packets import check_place, store
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
    checked_encoder,
    each,
    guesses,
    leave,
    print_json,
    print_table,
    problem,
    task_names,
)
from splitcodec.cli.tokens import TokenFileOption, read_token
from splitcodec.errors import SettingsError

if TYPE_CHECKING:
    from splitcodec.device.client import Encoded
    from splitcodec.device.view import Fit
    from splitcodec.wire.answer import Answer

SideOption = Annotated[
    int | None,
    typer.Option(
        "--side",
        min=1,
        metavar="PX",
        help="Longest side of a letterboxed picture. Default: the largest of the bundle's tasks.",
    ),
]
Images = Annotated[
    list[Path], typer.Argument(metavar="IMAGE", readable=False, help="Photographs: JPEG, PNG, WebP, AVIF, ...")
]


class FitChoice(StrEnum):
    """What of a picture is sent."""

    crop = "crop"
    letterbox = "letterbox"


def add_to(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command("encode", rich_help_panel="On the device")(encode)
    app.command("ask", rich_help_panel="On the device")(ask)


def encode(
    images: Images,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the packets.")] = Path(),
    level: LevelOption = None,
    coding: CodingOption = None,
    max_bytes: MaxBytesOption = None,
    force_fit: ForceFitOption = False,
    deadline_ms: DeadlineOption = None,
    kbit_per_s: RateOption = None,
    rtt_ms: RoundTripOption = None,
    fps: FpsOption = None,
    window_s: WindowOption = None,
    bundle: BundleOption = DEFAULT_BUNDLE,
    fit: Annotated[
        FitChoice, typer.Option("--fit", help="What of the picture is sent: boxes and label maps want all of it.")
    ] = FitChoice.crop,
    side: SideOption = None,
    encoder: EncoderOption = "tuned",
    threads: ThreadsOption = None,
    json_: JsonOption = False,
) -> None:
    """Turn photographs into packets ([b].spc[/b]) and say how many bytes each takes.

    The packet is all that has to travel. A packet takes its picture's name; where another packet of that name is there
    already, a number is added. Pictures that cannot be read, or that no packet within the limits holds, are reported,
    and the others are still done. With a limit, --level is the highest level that may be taken.
    """
    from splitcodec.device.client import Device

    _check_side(side, fit.value)
    allowed = Allowances(Limits(max_bytes, force_fit, deadline_ms, kbit_per_s, rtt_ms, fps, window_s))
    device = Device(bundle, threads=threads, encoder=checked_encoder(encoder), coding=coding)
    allowed.ready(device, level=level, fit=fit.value, side=side)
    check_place(out)

    def one(image: Path) -> dict[str, Any]:
        encoded = device.encode_timed(image, level=level, fit=fit.value, side=side, **allowed.next())
        allowed.spent(len(encoded.packet))
        packet = store(out, image.stem, encoded.packet)
        return {
            "image": str(image),
            "packet": str(packet),
            "bytes": len(encoded.packet),
            "level": encoded.level,
            "ms": round(sum(encoded.ms.values()), 3),
            **_forced(encoded, force_fit=force_fit),
        }

    done, failures = each(images, one, what="encoding")
    if json_:
        print_json(done)
    elif done:
        rows = [(d["image"], d["packet"], d["bytes"], d["level"], f"{d['ms']:.1f}") for d in done]
        print_table(f"{device.bundle.ident}", ("image", "packet", "bytes", "level", "ms"), rows, left=2)
    leave(failures)


def ask(
    images: Images,
    url: Annotated[
        str, typer.Option("--url", metavar="URL", help="The edge: http://10.0.0.2:8080, mqtt://HOST/TOPIC, udp://HOST.")
    ],
    level: LevelOption = None,
    coding: CodingOption = None,
    max_bytes: MaxBytesOption = None,
    force_fit: ForceFitOption = False,
    deadline_ms: DeadlineOption = None,
    kbit_per_s: RateOption = None,
    rtt_ms: RoundTripOption = None,
    fps: FpsOption = None,
    window_s: WindowOption = None,
    bundle: BundleOption = DEFAULT_BUNDLE,
    tasks: Annotated[str, typer.Option("--tasks", help="Comma-separated tasks of the bundle.")] = "classify",
    top: TopOption = None,
    score: ScoreOption = None,
    timeout: TimeoutOption = 10.0,
    retries: Annotated[int, typer.Option("--retries", min=0, help="Further tries when nobody answers.")] = 2,
    fit: Annotated[
        FitChoice | None,
        typer.Option("--fit", help="What of the picture is sent. Default: the crop to classify, else all of it."),
    ] = None,
    side: SideOption = None,
    draw: Annotated[
        Path | None, typer.Option("--draw", metavar="PNG", help="Write the picture with boxes and label map on it.")
    ] = None,
    token_file: TokenFileOption = None,
    encoder: EncoderOption = "tuned",
    threads: ThreadsOption = None,
    json_: JsonOption = False,
) -> None:
    """Encode photographs here, send the packets to a server, print its answers.

    One packet gets the answers to all tasks. Boxes and label maps come in pixels of the photograph. With --json one
    photograph gives one object, several give a list; one that failed has "error" in place of its answer. After what an
    edge refuses for every photograph, such as a token or a task, the others are not sent. --deadline-ms
    without --kbit-per-s measures the link by what it carries; the first photograph is then also sent at the lowest and
    the highest level that --level and --max-bytes allow.
    """
    import time

    from splitcodec.device.client import Device
    from splitcodec.device.links import around, open_link
    from splitcodec.device.meter import LinkMeter
    from splitcodec.device.overlay import in_picture
    from splitcodec.wire.answer import parse_answer
    from splitcodec.wire.problem import of_all

    check_finite({"--timeout": timeout})
    wanted = task_names(tasks)
    link = open_link(
        url,
        tasks=wanted,
        top=top,
        score=score,
        timeout_s=timeout,
        retries=retries,
        token=read_token(token_file, url=url),
    )
    shown: Fit = fit.value if fit is not None else "crop" if wanted == ["classify"] else "letterbox"
    check_draw(draw, images)
    _check_side(side, shown)
    meter = LinkMeter(link)
    limits = Limits(max_bytes, force_fit, deadline_ms, kbit_per_s, rtt_ms, fps, window_s)
    allowed = Allowances(limits, meter=meter, around=around(url))
    device = Device(bundle, threads=threads, encoder=checked_encoder(encoder), coding=coding)
    allowed.ready(device, level=level, fit=shown, side=side)
    start = time.monotonic()
    drawn: list[Answer] = []

    def one(image: Path) -> dict[str, Any]:
        if deadline_ms is not None and kbit_per_s is None and not meter.measured:
            highest = device.bundle.manifest.levels - 1 if level is None else level
            for probe in (0, 0, highest):  # the first opens the connection
                meter(device.encode(image, level=probe, max_bytes=max_bytes, force_fit=force_fit, fit=shown, side=side))
            meter.forget(1)
        asked = allowed.next()
        time.sleep(max(0.0, start + allowed.due_s - time.monotonic()))
        encoded = device.encode_timed(image, level=level, fit=shown, side=side, **asked)
        allowed.spent(len(encoded.packet))
        begin = time.perf_counter()
        sent = parse_answer(meter(encoded.packet), tasks=wanted)
        answer = in_picture(sent, encoded.place)
        drawn.append(answer)
        trip = round(1000 * (time.perf_counter() - begin) - sum(answer["ms"].values()), 3)
        ms = {**encoded.ms, "link": max(trip, 0.0), **answer["ms"]}
        forced = _forced(encoded, force_fit=force_fit)
        return {**answer, "ms": ms, "image": str(image), "bytes": len(encoded.packet), **forced}

    try:
        done, failures = each(
            images,
            one,
            what="asking",
            failed=lambda image, error: {"image": str(image), **problem(error)},
            of_all=of_all,
        )
    finally:
        link.close()
    if json_:
        print_json(done[0] if len(images) == 1 else done)
    elif answered := [d for d in done if "error" not in d]:
        rows = [(d["image"], guesses(d), d["bytes"], d["level"], f"{sum(d['ms'].values()):.1f}") for d in answered]
        print_table(f"{device.bundle.ident} at {link.url}", ("image", "answer", "bytes", "level", "ms"), rows, left=2)
    if draw is not None and drawn:  # after the answer is told: disks get full
        write_drawing(images[0], drawn[0], draw)
    leave(failures)


def _forced(encoded: Encoded, *, force_fit: bool) -> dict[str, int]:
    """Return what --force-fit did to a picture, for --json."""
    return {"side": encoded.side, "dropped": encoded.dropped} if force_fit else {}


def _check_side(side: int | None, fit: Fit) -> None:
    if side is not None and fit == "crop":
        raise SettingsError(f"--side {side} is that of a whole picture; add --fit letterbox, or leave --side out")
