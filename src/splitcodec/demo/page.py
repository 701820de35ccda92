"""The demo as one HTML page that needs nothing else: pictures inside, no script, light and dark.   before: run.py"""

from __future__ import annotations

import base64
from html import escape

from splitcodec.demo.trip import DemoResult, Trip
from splitcodec.wire.answer import Guess

SHORES = {
    "preprocess": "device",
    "encoder": "device",
    "coding": "device",
    "link": "link",
    "decode": "edge",
    "decoder": "edge",
    "tail": "edge",
}

_STYLE = """
:root { color-scheme: light dark; --paper: #fbfaf7; --card: #ffffff; --ink: #1d2429; --soft: #5d6870; --line: #dfddd6;
  --ours: #c2384e; --jpeg: #8795a1; --device: #2f6690; --link: #d9a441; --edge: #4a8c5c; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181b; --card: #1d2327; --ink: #e8e6e1; --soft: #9fabb3;
  --line: #333b41; --ours: #ef6f83; --jpeg: #75838e; --device: #6aa5d1; --link: #e0b45c; --edge: #74b886; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, -apple-system, "Segoe UI",
  Roboto, sans-serif; }
main { max-width: 58rem; margin: 0 auto; padding: 2rem 1rem 3rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.15rem; margin: 0; }
p { margin: .5rem 0; }
.soft, figcaption, th { color: var(--soft); }
.soft { font-size: .9rem; }
.sums { display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: 1rem; margin: 1.5rem 0; }
.sum, article { background: var(--card); border: 1px solid var(--line); border-radius: 12px; }
.sum { padding: .9rem 1.1rem; }
.sum b { display: block; font-size: 1.75rem; line-height: 1.2; color: var(--ours); font-variant-numeric: tabular-nums; }
article { padding: 1.1rem; margin: 1.2rem 0; display: grid; gap: 1.2rem; grid-template-columns: 22rem 1fr; }
.pictures { display: grid; gap: .8rem; align-content: start; grid-template-columns: 1fr 1fr; }
figure { margin: 0; }
img { width: 100%; height: auto; display: block; border-radius: 8px; }
figcaption { font-size: .8rem; margin-top: .25rem; }
.facts { display: grid; gap: 1rem; align-content: start; min-width: 0; }
.bars { display: grid; grid-template-columns: auto 1fr auto; gap: .3rem .7rem; align-items: center; font-size: .92rem; }
.bars .what { grid-column: 1 / -1; color: var(--soft); font-size: .8rem; margin-top: .3rem; }
.bars .number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.bar { height: .85rem; border-radius: 3px; min-width: 2px; background: var(--jpeg); }
.bar.ours { background: var(--ours); }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th { text-align: left; font-weight: 500; font-size: .8rem; }
td, th { padding: .15rem 0; vertical-align: top; }
td:nth-child(3), th:nth-child(3) { padding-left: 1.4rem; }
td.p { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.stages { display: flex; flex-wrap: wrap; gap: .35rem; font-size: .82rem; }
.stages span { border: 1px solid var(--line); border-left: 4px solid var(--line); border-radius: 4px;
  padding: .1rem .5rem; white-space: nowrap; font-variant-numeric: tabular-nums; }
.stages .device { border-left-color: var(--device); }
.stages .link { border-left-color: var(--link); }
.stages .edge { border-left-color: var(--edge); }
@media (max-width: 48rem) { article { grid-template-columns: 1fr; } }
"""


def render(result: DemoResult) -> str:
    """Return the page."""
    cards = "".join(_card(trip) for trip in result.trips)
    machine = f"{result.machine['system']}, {result.machine['processor']}, {result.machine['cores']} cores"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>splitcodec: send what the model needs, not the picture</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>Send what the model needs, not the picture</h1>
<p>A small encoder turned each photograph into a packet. The packet crossed a simulated link of
{result.kbit_per_s:g} kbit/s with a round trip of {result.rtt_ms:g} ms; a server on the other side decoded network
features from it and answered. No picture was sent.</p>
{_sums(result)}
{cards}
<h2>How to read this</h2>
{_beside(result)}
<p class="soft"><b>Time on the link</b> is calculated alike for both: bytes there and answer back at the link's rate,
plus the round trip. <b>Milliseconds per stage</b> were measured; the link's hold the real waiting and the HTTP around
it (blue: device, yellow: link, green: edge). Bundle {escape(result.bundle)}; {escape(machine)}; device, server and link
shared this machine.</p>
</main>
</body>
</html>
"""


_SMALLEST = """the smallest of the same crop, qualities 1 to 95 all tried, that
the same network, uncompressed, reads as well as the packet: the first label of the untouched crop comes first if it
does so for the packet, and is at least as probable as for the packet (or as for the untouched crop, if that is less).
One photograph can be lucky either way; <code>splitcodec evaluate</code> measures many."""


def _beside(result: DemoResult) -> str:
    """Say which JPEG stands beside each packet."""
    equal = result.equal
    if equal is None:
        return f'<p class="soft"><b>The JPEG beside each packet</b> is {_SMALLEST}</p>'
    return f"""<p class="soft"><b>The JPEG beside each packet</b> is that of the same crop and of equal accuracy: over
{equal.photographs} ImageNet photographs, one quality for all, quality {equal.quality} is the lowest measured that gets
as many right ({equal.jpeg_top1:.1f} % top-1) as packets of this level ({equal.top1:.1f} %). <b>The smallest that would
have done</b> is {_SMALLEST}</p>"""


def _sums(result: DemoResult) -> str:
    pairs = result.compared
    if not pairs:
        return ""
    ours, theirs = sum(trip.packet_bytes for trip, _ in pairs), sum(len(jpeg.data) for _, jpeg in pairs)
    ours_s = sum(trip.airtime_ms for trip, _ in pairs) / 1000
    theirs_s = sum(jpeg.airtime_ms for _, jpeg in pairs) / 1000
    alike = sum(trip.reads_alike for trip in result.trips)
    return f"""<section class="sums">
<div class="sum"><b>{ours:,} bytes</b>for {len(pairs)} pictures; as JPEG {theirs:,}, {_times(theirs / ours)}</div>
<div class="sum"><b>{ours_s:.1f} s</b>on the link; as JPEG {theirs_s:.1f} s</div>
<div class="sum"><b>{alike} of {len(result.trips)}</b>packets get the label of the untouched picture</div>
</section>"""


def _times(ratio: float) -> str:
    return f"{ratio:.1f} times as many" if ratio >= 1 else f"{100 * ratio:.0f} % of that"


def _card(trip: Trip) -> str:
    photograph, jpeg = trip.photograph, trip.beside
    pictures = _figure(trip.crop_jpeg, f"what the encoder saw; photograph: {photograph.credit}", alt=photograph.title)
    if jpeg is not None:
        which = "the JPEG" if trip.equal is None else "the JPEG of equal accuracy"
        caption = f"{which}: quality {jpeg.quality}, {len(jpeg.data):,} bytes"
        pictures += _figure(jpeg.data, caption, alt=f"{photograph.title}, as JPEG of quality {jpeg.quality}")
        rows = [
            ("bytes to send", float(trip.packet_bytes), float(len(jpeg.data)), "{:,.0f}"),
            ("seconds on the link", trip.airtime_ms / 1000, jpeg.airtime_ms / 1000, "{:.2f} s"),
        ]
        bars = f'<div class="bars">{"".join(_bars(*row) for row in rows)}</div>{_smallest(trip)}'
    else:
        bars = (
            f"<p>{trip.packet_bytes:,} bytes, {trip.airtime_ms / 1000:.2f} s on the link. No JPEG up to quality 95 is "
            "read as well.</p>"
        )
    stages = "".join(
        f'<span class="{SHORES.get(stage, "edge")}">{escape(stage)} {spent:,.1f} ms</span>'
        for stage, spent in trip.ms.items()
    )
    differs = "" if trip.reads_alike else "<p>Here the packet gets another label than the untouched picture.</p>"
    return f"""<article>
<div class="pictures">{pictures}</div>
<div class="facts">
<h2>{escape(photograph.title)}</h2>
{bars}
{_answers(trip.guesses[:3], trip.teacher[:3])}{differs}
<div class="stages">{stages}</div>
</div>
</article>
"""


def _smallest(trip: Trip) -> str:
    """Say which JPEG would have done, beside one that was chosen otherwise."""
    if trip.equal is None:
        return ""
    found = "none up to quality 95" if trip.jpeg is None else f"{trip.jpeg.told()} (quality {trip.jpeg.quality})"
    return f'<p class="soft">The smallest JPEG that would have done, all tried: {found}.</p>'


def _figure(data: bytes, caption: str, *, alt: str) -> str:
    source = f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
    return f'<figure><img src="{source}" alt="{escape(alt)}"><figcaption>{escape(caption)}</figcaption></figure>'


def _bars(what: str, ours: float, theirs: float, form: str) -> str:
    longest = max(ours, theirs)
    lines = [f'<span class="what">{what}</span>']
    for name, value, kind in (("packet", ours, "bar ours"), ("JPEG", theirs, "bar")):
        width = f"{100 * value / longest:.1f}%"
        lines.append(f'<span>{name}</span><span class="{kind}" style="width:{width}"></span>')
        lines.append(f'<span class="number">{form.format(value)}</span>')
    return "".join(lines)


def _answers(ours: tuple[Guess, ...], teacher: tuple[Guess, ...]) -> str:
    head = "<tr><th>answer to the packet</th><th></th><th>network on the untouched picture</th><th></th></tr>"
    rows = "".join(f"<tr>{_guess(one)}{_guess(other)}</tr>" for one, other in zip(ours, teacher, strict=True))
    return f"<table>{head}{rows}</table>"


def _guess(guess: Guess) -> str:
    return f'<td>{escape(guess["label"])}</td><td class="p">{100 * guess["p"]:.0f} %</td>'
