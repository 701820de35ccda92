"""Commands around the INT8 encoder: quantise makes and measures one, tune chooses on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from splitcodec.cli.contexts import readable
from splitcodec.cli.show import (
    DEFAULT_BUNDLE,
    BundleArgument,
    JsonOption,
    NewNameOption,
    NewVersionOption,
    PicturesAtATimeOption,
    complain,
    counter,
    print_json,
    print_table,
    progress,
    tell_kept,
    training_room,
    written,
)
from splitcodec.errors import BundlePart, DataError, GoldenMismatch, SettingsError

if TYPE_CHECKING:
    from splitcodec.device.encoder import Precision
    from splitcodec.evaluation.agreement import Agreement

CALIBRATED_ON = 256
MOST_LOST = 0.5  # points of agreement


def add_to(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command("quantise", rich_help_panel="Training")(quantise)
    app.command("quantize", hidden=True)(quantise)
    app.command("tune", rich_help_panel="On the device")(tune)


def quantise(
    bundle: BundleArgument,
    photos: Annotated[
        list[Path],
        typer.Option(
            "--photos", metavar="DIR", help="Photographs to calibrate on, such as those trained on; repeatable."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The new bundle's folder.")],
    held_out: Annotated[
        list[Path] | None,
        typer.Option(
            "--held-out", metavar="DIR", help="Other photographs, to measure on; repeatable. Default: a fifth."
        ),
    ] = None,
    calibrate_on: Annotated[
        int, typer.Option("--calibrate-on", min=4, metavar="N", help="Photographs to calibrate on, at most.")
    ] = CALIBRATED_ON,
    measure_on: Annotated[
        int | None, typer.Option("--measure-on", min=1, metavar="N", help="Photographs to measure on. Default: all.")
    ] = None,
    levels: Annotated[
        str | None, typer.Option("--levels", metavar="L,...", help="Levels to measure. Default: all.")
    ] = None,
    keep_float: Annotated[
        int, typer.Option("--keep-float", min=0, metavar="N", help="Leave the N most sensitive convolutions in fp32.")
    ] = 0,
    name: NewNameOption = None,
    version: NewVersionOption = None,
    threads: PicturesAtATimeOption = None,
    json_: JsonOption = False,
) -> None:
    """Add an INT8 encoder to a bundle and measure what it loses against fp32.

    Static QDQ, per channel, calibrated on photographs. Fingerprint, tables and the edge's graphs stay: which encoder
    made a packet does not matter to the edge. Measured is agreement with the teacher at equal bytes.
    """
    with training_room():
        from splitcodec.training.quantise import quantise_encoder
    from splitcodec.device.client import Device
    from splitcodec.evaluation.agreement import agreement, check_levels
    from splitcodec.evaluation.calibrate import shuffled
    from splitcodec.evaluation.int8 import with_int8
    from splitcodec.wire.bundle import open_bundle, renamed, write_folder
    from splitcodec.wire.durable import check_free

    check_free(out)
    opened = open_bundle(bundle)
    if opened.is_device_half:
        raise BundlePart(f"{opened.ident} is the device's half, whose loss cannot be measured; take the whole bundle")
    was, opened = opened.ident, renamed(opened, name, version)
    wanted = _numbers("--levels", levels) if levels is not None else None
    check_levels(opened, wanted)
    calibration, measured_on = _apart(shuffled(photos), shuffled(held_out) if held_out else [])
    device = Device(opened, threads=1)
    with progress() as bar:
        crops, skipped = readable(device.crop, calibration, most=calibrate_on, bar=bar, what="calibrating")
        if not crops:
            raise DataError(f"none of {len(calibration)} photographs to calibrate on can be read; give others")
        int8 = quantise_encoder(
            opened.read("encoder.onnx"),
            crops,
            tables=opened.tables[0],
            level=opened.manifest.default_level,
            keep_float=keep_float,
        )
        note: dict[str, Any] = {
            "photographs": len(crops),
            "calibrator": int8.calibrator,
            "kept_float": list(int8.kept_float),
        }
        draft = with_int8(opened, int8.graph, note=note)
        tell = counter(bar, "measuring")
        found = agreement(draft, measured_on[:measure_on], levels=wanted, threads=threads, progress=tell)
        note["agreement_lost"] = {"points": round(found.loss, 3), "photographs": found.photographs}
        made = write_folder(with_int8(opened, int8.graph, note=note), out)
    for why in (*skipped, *(why for _, why in found.skipped)):
        complain(f"left out: {why}")
    if json_:
        facts = {**written(made, out), "folder": str(out), "bytes": len(int8.graph), "int8": note, "error": int8.error}
        print_json({**facts, **found.to_json()})
        return
    _tell(found)
    print(
        f"{out}: {made.ident} with an INT8 encoder of {len(int8.graph):,} bytes; "
        f"next, on the device: splitcodec tune {out}"
    )
    tell_kept(was, made)


def tune(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="A zoo name, a folder or a .zip.")] = DEFAULT_BUNDLE,
    threads: Annotated[
        str | None,
        typer.Option("--threads", metavar="N,...", help="Thread counts to try. Default: 1, 2, 4, ... cores."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure, but record nothing.")] = False,
    json_: JsonOption = False,
) -> None:
    """Time the fp32 and INT8 encoders on this machine once, and record which one `encode` uses from now on.

    The choice holds for this bundle, this version of ONNX Runtime and this processor; `encode --encoder` overrides it.
    An INT8 encoder whose golden vectors do not replay here is never chosen. Coding by context is timed as well, on the
    golden vectors' symbols: below the rate that is told, its fewer bytes save more time than it takes.
    """
    from splitcodec.device.tuned import time_codings
    from splitcodec.device.tuned import tune as measure
    from splitcodec.evaluation.agreement import has_int8
    from splitcodec.evaluation.golden import FILE, FILE_INT8, read_golden
    from splitcodec.evaluation.replay import replay_int8
    from splitcodec.wire.bundle import open_bundle

    opened = open_bundle(bundle)
    refused: dict[Precision, str] = {}
    if has_int8(opened) and opened.has(FILE_INT8):
        try:
            replay_int8(opened)
        except GoldenMismatch as error:
            refused["int8"] = str(error)
    with progress() as bar:
        found = measure(
            opened,
            threads=_numbers("--threads", threads) if threads is not None else None,
            refused=refused,
            record=not dry_run,
            progress=counter(bar, "timing"),
        )
    codings = None
    if opened.has(FILE):
        level = opened.manifest.default_level
        symbols = read_golden(opened, FILE).symbols_lnchw[level].astype("int32")
        codings = time_codings(opened, list(symbols), level=level)
    if json_:
        print_json({**found.to_json(), "codings": None if codings is None else codings.to_json()})
        return
    rows = [(one.encoder, one.threads, f"{one.ms:.2f}", one.refused or "") for one in found.timings]
    print_table(f"{found.bundle} on {found.processor}", ("encoder", "threads", "ms", ""), rows)
    plural = "" if found.choice.threads == 1 else "s"
    print(f"{found.choice.encoder} with {found.choice.threads} thread{plural}: {found.choice.why}")
    if codings is not None and len(codings.timings) > 1:
        channel, context = codings.timings
        pays = codings.pays_below_kbit_per_s
        print(
            f"by context {context.bytes:,.0f} bytes in {context.ms:.2f} ms, by channel {channel.bytes:,.0f} in "
            f"{channel.ms:.2f} ms: "
            + ("by channel is better here" if pays is None else f"by context pays below {pays:,.0f} kbit/s")
            + (", --coding 0 above" if pays is not None else " (--coding 0)")
        )
    print("nothing recorded (--dry-run)" if found.recorded is None else f"recorded in {found.recorded}")


def _apart(calibration: list[Path], held_out: list[Path]) -> tuple[list[Path], list[Path]]:
    """Return photographs to calibrate on and others to measure on: those held out, or else a fifth."""
    if not held_out:
        if len(calibration) < 2:
            raise DataError("one photograph; expected at least 2, one to calibrate on and one to measure on")
        share = max(1, len(calibration) // 5)
        return calibration[share:], calibration[:share]
    measured = {path.resolve() for path in held_out}  # one folder may lie in the other
    left = [path for path in calibration if path.resolve() not in measured]
    if not left:
        raise DataError("--held-out has every photograph of --photos; give others to measure on, or leave it out")
    return left, held_out


def _tell(found: Agreement) -> None:
    rows = [
        (
            one.level,
            *(f"{size:,.0f}" for size in one.bytes),
            *(f"{share:.2f}" for share in one.agreement),
            f"{one.loss:+.2f}",
            f"{one.symbols_equal:.1f}",
        )
        for one in found.levels
    ]
    columns = ("level", "fp32 bytes", "INT8 bytes", "fp32 agrees, %", "INT8 agrees, %", "lost", "symbols equal, %")
    print_table(f"{found.bundle}, {found.photographs} photographs kept out", columns, rows, left=0)
    low, high = found.interval
    verdict = "within" if found.loss <= MOST_LOST else "MORE THAN"
    print(
        f"INT8 loses {found.loss:.2f} points of agreement at equal bytes [{low:.2f}, {high:.2f}], {verdict} the "
        f"{MOST_LOST} aimed at. Tables of its own would change its bytes by {found.own_tables:+.2f} % (refitting "
        f"fp32's on the same photographs: {found.refitted:+.2f} %)."
    )


def _numbers(option: str, text: str) -> list[int]:
    try:
        found = [int(word) for word in text.split(",") if word.strip()]
    except ValueError:
        found = []
    if not found or min(found) < 0:
        raise SettingsError(f"{option} {text!r}: expected numbers with commas between them, such as 0,2,4")
    return found
