"""The page's modules one by one, in a tab that shows nothing: numbers, places, limits, links and refusals."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi")

from splitcodec import Device, Edge
from splitcodec.demo.photos import PHOTOGRAPHS
from splitcodec.demo.web import mount
from splitcodec.edge.server import BackgroundServer, create_app, read_settings
from splitcodec.wire.bundle import Bundle, open_bundle
from splitcodec.wire.png import write_png

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return open_bundle("efficientnet-lite0-tiny")


@pytest.fixture(scope="module")
def url(bundle: Bundle) -> Iterator[str]:
    edge = Edge(bundle, threads=1)
    app = create_app(edge, read_settings())
    mount(app, edge, ort=None)
    with BackgroundServer(app) as server:
        yield server.url


@pytest.fixture(scope="module")
def tab(chromium: Browser, url: str) -> Iterator[Page]:
    context = chromium.new_context(locale="en")
    page = context.new_page()
    page.goto(f"{url}/demo/bundle")
    yield page
    context.close()


class Module:
    """Functions of one module of the page, called from here."""

    def __init__(self, tab: Page, name: str) -> None:
        self._tab, self._name = tab, name

    def run(self, body: str, *given: Any) -> Any:
        """Return what an async function (module `m`, given ...) of this body returns; {refused} for what it throws."""
        script = f"""async ([name, given]) => {{
            const m = await import(`/demo/static/${{name}}.js`);
            try {{ return await (async ({", ".join(f"g{n}" for n in range(len(given)))}) => {{ {body} }})(...given); }}
            catch (error) {{ return {{refused: error.message, kind: error.constructor.name, status: error.status}}; }}
        }}"""
        return self._tab.evaluate(script, [self._name, list(given)])


def test_guesses_have_a_percentage_a_bar_and_the_first_of_their_names(tab: Page) -> None:
    guesses = [
        {"label": "cup, mug", "p": 0.934},
        {"label": "bowl", "p": 0.1},
        {"label": "vase", "p": 0.0996},
        {"label": "urn", "p": 0.0005},
    ]
    body = """const list = document.createElement("ol");
        m.showGuesses(list, g0);
        const found = [...list.children].map((item) => [...item.children].map((one) =>
            [one.tagName, one.textContent, one.title, one.getAttribute("value"), one.max, one.min]));
        m.showGuesses(list, null);
        return [found, list.children.length];"""
    found, left = Module(tab, "view").run(body, guesses)
    assert left == 0
    assert [[one[:2] for one in item[:2]] for item in found] == [
        [["SPAN", "cup"], ["B", "93 %"]],
        [["SPAN", "bowl"], ["B", "10 %"]],
        [["SPAN", "vase"], ["B", "10.0 %"]],
        [["SPAN", "urn"], ["B", "0.1 %"]],
    ]
    assert [item[0][2] for item in found] == ["cup, mug", "bowl", "vase", "urn"]
    assert [item[2][0] for item in found] == ["METER"] * 4
    assert [item[2][3:] for item in found] == [[str(one["p"]), 1, 0] for one in guesses]


def test_times_are_a_bar_and_a_list_in_their_order(tab: Page) -> None:
    body = """const told = ["whole", "bar", "times"].map((id) => {
            const one = m.make("div", "", {id}); document.body.append(one); return one;
        });
        const look = () => [told[0].textContent,
            [...told[1].children].map((one) => [one.className, one.style.flexGrow]),
            [...told[2].children].map((one) => [...one.children].map((part) => [part.className, part.textContent]))];
        m.showTimes(g0); const some = look();
        m.showTimes({}); const none = look();
        told.forEach((one) => one.remove());
        return [some, none];"""
    ms = {"preprocess": 1.24, "encoder": 2.0, "coding": 0, "link": 30.06, "decode": 4.5, "tail": 2.25}
    (whole, bar, times), none = Module(tab, "view").run(body, ms)
    shores = ["device"] * 3 + ["link"] + ["edge"] * 2
    assert whole == "40 ms in all"
    grown = [str(max(one, 0.001)).removesuffix(".0") for one in ms.values()]
    assert bar == [list(one) for one in zip(shores, grown, strict=True)]
    assert [one[0] for one in times] == [[shore, stage] for shore, stage in zip(shores, ms, strict=True)]
    assert [one[1][1] for one in times] == ["1.2 ms", "2.0 ms", "0.0 ms", "30.1 ms", "4.5 ms", "2.3 ms"]
    assert none == ["", [], []]


def test_counts_are_written_for_people(tab: Page) -> None:
    assert Module(tab, "view").run("return [0, 999, 1687, 1234567].map(m.count)") == ["0", "999", "1,687", "1,234,567"]


DRAWN = """const canvas = document.createElement("canvas"), list = document.createElement("ul");
    await m.drawAnswers(canvas, list, g0);
    const context = canvas.getContext("2d");
    const at = ([x, y]) => [...context.getImageData(x * canvas.width, y * canvas.height, 1, 1).data];
    const items = [...list.children].map((one) => [one.textContent, one.firstChild.style.background]);
    const drawn = g1.map(at);
    await m.drawAnswers(canvas, list, {}, () => true);
    const kept = [g1.map(at), list.children.length];
    await m.drawAnswers(canvas, list, null);
    const cleared = [g1.map((place) => at(place)[3]), list.children.length];
    return {drawn, items, kept, cleared};"""


def boxed(*corners: float, score: float = 0.9, index: int = 2) -> dict[str, Any]:
    return {"index": index, "label": "cup, mug", "score": score, "box": list(corners)}


def test_a_box_is_drawn_from_corner_to_corner(tab: Page) -> None:
    """Left and top, right and bottom; inside it the picture is seen."""
    sides = [(0.25, 0.75), (0.5, 0.75), (0.4, 0.5), (0.4, 0.999)]
    beside = [(0.4, 0.75), (0.2, 0.75), (0.55, 0.75), (0.3, 0.4), (0.75, 0.4)]
    drawn = Module(tab, "view").run(DRAWN, {"detect": [boxed(0.25, 0.5, 0.5, 1.0)]}, [*sides, *beside])["drawn"]
    assert [one[3] for one in drawn[: len(sides)]] == [255] * len(sides)
    assert [one[3] for one in drawn[len(sides) :]] == [0] * len(beside)
    red, green, blue, _ = drawn[0]
    assert red > green > blue, "the third of ten hues"


def test_boxes_from_a_half_on_are_drawn_the_surest_on_top(tab: Page) -> None:
    both = [boxed(0.1, 0.2, 0.6, 0.7, index=4), boxed(0.1, 0.2, 0.6, 0.7, score=0.6, index=3)]
    some = [boxed(0.7, 0.7, 0.9, 0.9, score=0.5), boxed(0.7, 0.2, 0.9, 0.4, score=0.4999)]
    places = [(0.1, 0.5), (0.7, 0.8), (0.7, 0.35)]
    drawn = Module(tab, "view").run(DRAWN, {"detect": [*both, *some]}, places)["drawn"]
    red, green, blue, _ = drawn[0]
    assert blue > max(red, green), "the fifth hue, not the fourth"
    assert [one[3] for one in drawn[1:]] == [255, 0]


def test_label_maps_are_seen_through_and_list_their_largest_classes(tab: Page) -> None:
    colours = np.array([[10 * n, 255 - 10 * n, 7] for n in range(9)], np.uint8)
    png = base64.b64encode(write_png(np.array([[1, 8]], np.uint8), colours)).decode()
    shares = (0.5, 0.25, 0.1, 0.08, 0.0099, 0.01, 0.02, 0.0101)
    classes = [{"index": n + 1, "label": f"c{n + 1}", "share": share} for n, share in enumerate(shares)]
    answers = {"segment": {"size": [1, 2], "png": png, "classes": classes}, "classify": [{"label": "x", "p": 1}]}
    told = Module(tab, "view").run(DRAWN, answers, [(0.25, 0.5), (0.75, 0.5)])
    for found, colour in zip(told["drawn"], (colours[1], colours[8]), strict=True):
        assert 120 < found[3] < 136
        assert np.abs(np.array(found[:3]) - colour).max() <= 2
    assert [one[0] for one in told["items"]] == ["c1 50 %", "c2 25 %", "c3 10 %", "c4 8 %", "c6 1 %", "c7 2 %"]
    assert told["items"][0][1] == "rgb(10, 245, 7)"
    assert told["kept"] == [told["drawn"], 6], "a newer answer draws itself"
    assert told["cleared"] == [[0, 0], 0]


FETCH = """const was = globalThis.fetch, calls = [];
    globalThis.fetch = async (url, options) => {
        calls.push({url: String(url), method: options.method, headers: options.headers,
            credentials: options.credentials, body: options.body ? [...new Uint8Array(options.body)] : null});
        if (g0.error) throw Object.assign(new Error("odd"), {name: g0.error});
        await new Promise((done) => setTimeout(done, g0.wait ?? 0));
        return new Response(g0.body ?? JSON.stringify(g0.json ?? {}), {status: g0.status ?? 200,
            statusText: g0.text ?? "", headers: g0.headers ?? {}});
    };
    try { return {calls, ...(await (async () => { %s })())}; }
    finally { globalThis.fetch = was; m.useToken(""); }"""
ASK = "return await m.askEdge(Uint8Array.of(1, 2), {tasks: ['classify', 'a b'], score: 0.5})"


def test_the_link_is_what_the_edge_did_not_count(tab: Page) -> None:
    """The rest of the round trip; never below nought, however long the edge says that it took."""
    server = Module(tab, "server")
    told = server.run(FETCH % ASK, {"json": {"ms": {"decode": 60, "tail": 40}}, "wait": 300})
    assert 195 <= told["link"] < 900
    assert told["answer"] == {"ms": {"decode": 60, "tail": 40}}
    assert server.run(FETCH % ASK, {"json": {"ms": {"tail": 1e6}}})["link"] == 0


def test_a_packet_is_posted_to_the_edge_with_the_token(tab: Page, url: str) -> None:
    server = Module(tab, "server")
    answer: dict[str, Any] = {"json": {"ms": {}}}
    (call,) = server.run(FETCH % f"m.useToken(' sesame '); {ASK}", answer)["calls"]
    assert call["url"] == f"{url}/v1/answer?top=5&score=0.5&tasks=classify,a%20b"
    assert (call["method"], call["body"], call["credentials"]) == ("POST", [1, 2], "same-origin")
    assert call["headers"] == {"authorization": "Bearer sesame", "content-type": "application/octet-stream"}
    (call,) = server.run(FETCH % "return {json: await m.getJson('bundle')}", answer)["calls"]
    assert (call["url"], call["method"], call["headers"], call["body"]) == (f"{url}/demo/bundle", "GET", {}, None)
    teachers = "return {json: await m.askTeachers(new Blob([Uint8Array.of(7)]), {tasks: ['classify']})}"
    (call,) = server.run(FETCH % teachers, answer)["calls"]
    assert (call["url"], call["body"]) == (f"{url}/demo/picture?tasks=classify", [7])
    told = server.run(FETCH % "return {bytes: [...await m.getBytes('x')]}", {"body": "AB"})
    assert told["bytes"] == [65, 66]


@pytest.mark.parametrize(
    ("response", "status", "said"),
    [
        ({"status": 401}, 401, "The server asks for a token."),
        ({"status": 413}, 413, "The server refused this: it is larger than it takes."),
        ({"status": 429, "headers": {"retry-after": "7"}}, 429, "The server is busy. Try again in 7 s."),
        ({"status": 503}, 503, "The server is busy. Try again in a moment."),
        ({"status": 404, "body": "<p>", "text": "Not Found"}, 404, "The server refused this (404). Not Found"),
        (
            {"status": 400, "json": {"title": "PacketBundle", "detail": "made elsewhere"}},
            400,
            "The server refused this (400). PacketBundle: made elsewhere",
        ),
        ({"error": "TypeError"}, 0, "The server does not answer. Is splitcodec serve --demo still running?"),
    ],
)
def test_refusals_are_sentences(tab: Page, response: dict[str, Any], status: int, said: str) -> None:
    told = Module(tab, "server").run(FETCH % ASK, response)
    assert told == {"refused": said, "kind": "ServerError", "status": status}


def test_what_was_called_off_is_no_failure_of_the_server(tab: Page) -> None:
    assert Module(tab, "server").run(FETCH % ASK, {"error": "AbortError"})["refused"] == "odd"


def test_a_latent_that_is_no_square_keeps_its_rows(tab: Page, bundle: Bundle) -> None:
    """Of 3 rows and 5 columns, by context and by channel."""
    random, manifest = np.random.default_rng(4), bundle.manifest
    latent_chw = random.normal(0, 1, (manifest.channels, 3, 5)).astype(np.float32)
    latent_chw *= np.geomspace(3, 0.1, manifest.channels, dtype=np.float32)[:, None, None]
    body = """const { openContexts } = await import("/demo/static/contexts.js");
        const [tables, made] = await Promise.all(["tables", "contexts"].map(async (name) =>
            (await fetch(`/demo/${name}`)).json()));
        const hex = (packet) => Array.from(packet, (byte) => byte.toString(16).padStart(2, "0")).join("");
        const latent = {data: Float32Array.from(g0), rows: g1, cols: g2};
        const bundle = {levels: g3, fingerprint: g4};
        return [openContexts(made), null].map((contexts) =>
            m.encodeLevels(latent, bundle, {tables, contexts}).map(hex));"""
    given = (latent_chw.ravel().tolist(), 3, 5, manifest.levels, bundle.fingerprint.hex())
    found = Module(tab, "encoder").run(body, *given)
    for coding, packets in zip((2, 0), found, strict=True):
        device = Device(bundle, threads=1, coding=coding)
        assert packets == [device.pack_latent(latent_chw, level=level).hex() for level in range(manifest.levels)]


def png(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "png")
    return base64.b64encode(file.getvalue()).decode()


OPENED = """const bytes = Uint8Array.from(atob(g0), (letter) => letter.charCodeAt(0));
    const picture = await m.openPicture(new Blob([bytes]), g1);
    const { side, rgb } = m.cropPicture(picture, {resize: g2, crop: g3});
    return [picture.width, picture.height, side, [...rgb.subarray(0, 3)]];"""


def test_pictures_have_as_many_pixels_as_are_taken_and_no_more(tab: Page) -> None:
    opened = Module(tab, "picture")
    data = png(Image.new("RGB", (300, 200), (1, 2, 3)))
    assert opened.run(OPENED, data, 60_000, 64, 32) == [300, 200, 32, [1, 2, 3]]
    told = opened.run(OPENED, data, 59_999, 64, 32)
    assert told["kind"] == "PictureError"
    assert told["refused"] == "This picture has 0.1 megapixels; at most 0.1 are taken. Shrink it first."
    large = opened.run(OPENED, png(Image.new("L", (2000, 1250))), 1_600_000, 64, 32)
    assert large["refused"].startswith("This picture has 2.5 megapixels; at most 1.6 are taken.")
    other = opened.run(OPENED, base64.b64encode(b"no picture").decode(), 1e6, 64, 32)
    assert "not a picture that your browser can open" in other["refused"]


@pytest.mark.parametrize("upright", [False, True])
def test_pictures_may_be_narrow_but_not_without_end(tab: Page, upright: bool) -> None:
    """The long side after resizing may have 16,384 pixels, as on the device."""
    opened = Module(tab, "picture")

    def of(long: int) -> Any:
        return opened.run(OPENED, png(Image.new("RGB", (1, long) if upright else (long, 1))), 1e6, 64, 32)

    assert of(256)[2] == 32
    told = of(257)
    assert told["kind"] == "PictureError"
    size = "1 x 257" if upright else "257 x 1"
    assert told["refused"] == f"A picture of {size} is too narrow. Cut it to a less extreme shape first."


@pytest.mark.parametrize("to", [17, 96, 224, 300])
def test_a_square_is_scaled_as_pillow_does(tab: Page, to: int) -> None:
    square_hwc = np.random.default_rng(to).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    body = """const {side, rgb} = m.scaleSquare({side: 96, rgb: Uint8Array.from(g0)}, g1); return [side, [...rgb]];"""
    side, found = Module(tab, "picture").run(body, square_hwc.ravel().tolist(), to)
    assert side == to
    expected = np.asarray(Image.fromarray(square_hwc).resize((to, to), Image.Resampling.BICUBIC))
    assert np.array_equal(np.array(found, np.uint8).reshape(to, to, 3), expected)


def test_the_best_quality_that_fits_is_taken(tab: Page) -> None:
    """One step more would not fit; where the crop's own size fits at no quality, smaller ones are tried."""
    body = """const { openPicture, cropPicture, toCanvas, scaleSquare } = await import("/demo/static/picture.js");
        const { lean } = await import("/demo/static/lean.js");
        const bytes = Uint8Array.from(atob(g0), (letter) => letter.charCodeAt(0));
        const crop = cropPicture(await openPicture(new Blob([bytes]), 32e6), {resize: 256, crop: 224});
        const sized = async (side, quality) => {
            const small = toCanvas(scaleSquare(crop, side));
            const blob = await new Promise((done) => small.toBlob(done, "image/jpeg", quality / 100));
            return lean(new Uint8Array(await blob.arrayBuffer())).length;
        };
        const found = [];
        for (const budget of g1) {
            const one = await m.jpegWithin(crop, budget, () => false);
            const {blob, side, quality, fullFits, shown} = one;
            let off = 0;
            for (let n = 0; n < crop.rgb.length; n++) off += (shown.rgb[n] - crop.rgb[n]) ** 2;
            found.push({size: blob.size, side, quality, fullFits, shown: shown.side, type: blob.type,
                off: off / crop.rgb.length, same: await sized(side, quality), next: await sized(side, quality + 1)});
        }
        return [found, await m.jpegWithin(crop, 5000, () => true), await sized(224, 0), await sized(224, 100)];"""
    budgets = [700, 2500, 9000, 10_000_000]
    data = base64.b64encode(PHOTOGRAPHS[0].read()).decode()
    found, stopped, least, most = Module(tab, "jpeg").run(body, data, budgets)
    assert stopped is None
    for budget, one in zip(budgets, found, strict=True):
        assert (one["type"], one["shown"]) == ("image/jpeg", 224)
        assert one["size"] == one["same"] <= budget
        assert one["fullFits"] == (least <= budget)
        assert one["next"] > budget or one["quality"] == 100
    assert found[0]["side"] < 224
    assert (found[-1]["side"], found[-1]["quality"], found[-1]["size"]) == (224, 100, most)
    off = [one["off"] for one in found]
    assert off == sorted(off, reverse=True)


LEAN = """const bytes = Uint8Array.from(atob(g0), (letter) => letter.charCodeAt(0));
    return btoa(String.fromCharCode(...m.lean(bytes)));"""


def lean(tab: Page, data: bytes) -> bytes:
    return base64.b64decode(Module(tab, "lean").run(LEAN, base64.b64encode(data).decode()))


@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_jpegs_of_every_subsampling_and_odd_size_keep_their_pixels(tab: Page, subsampling: int) -> None:
    with Image.open(io.BytesIO(PHOTOGRAPHS[2].read())) as picture:
        for size in ((97, 61), (8, 8), (17, 16)):
            file = io.BytesIO()
            picture.convert("RGB").resize(size).save(
                file, "jpeg", quality=70, subsampling=subsampling, comment=b"long" * 50
            )
            shorter = lean(tab, file.getvalue())
            assert len(shorter) < len(file.getvalue()) - 200
            assert np.array_equal(np.asarray(Image.open(io.BytesIO(shorter))), np.asarray(Image.open(file)))


ZIGZAG = ((0, 1), (1, 0), (2, 0), (1, 1), (0, 2), (0, 3), (1, 2), (2, 1), (3, 0), (4, 0))  # row, column


def fibonacci() -> Image.Image:
    """Return grey blocks of one coefficient each, twenty kinds of it as often as Fibonacci has it: codes of 20 bits."""
    kinds = [(place, size) for place in ZIGZAG for size in (1, 2)]
    counts = [1, 1]
    while len(counts) < len(kinds):
        counts.append(counts[-1] + counts[-2])
    across = down = int(np.ceil(np.sqrt(sum(counts))))
    blocks = np.full((across * down, 8, 8), 128.0)
    wave = np.cos((2 * np.arange(8) + 1) * np.arange(8)[:, None] * np.pi / 16)  # frequency, place
    wave[0] /= np.sqrt(2)
    kind_b = np.repeat(np.arange(len(kinds)), counts)
    for number, kind in enumerate(np.random.default_rng(0).permutation(kind_b)):
        (row, col), size = kinds[kind]
        blocks[number] += size * 16 / 4 * np.outer(wave[row], wave[col])
    rows_hw = blocks.reshape(down, across, 8, 8).swapaxes(1, 2).reshape(8 * down, 8 * across)
    return Image.fromarray(np.rint(rows_hw).clip(0, 255).astype(np.uint8)).convert("RGB")


def test_codes_longer_than_sixteen_bits_are_shortened(tab: Page) -> None:
    file, best = io.BytesIO(), io.BytesIO()
    for one, options in ((file, {}), (best, {"optimize": True})):
        fibonacci().save(one, "jpeg", qtables=[[16] * 64] * 2, subsampling=0, **options)
    shorter = lean(tab, file.getvalue())
    assert len(shorter) <= len(best.getvalue()) < len(file.getvalue())
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(shorter))), np.asarray(Image.open(file)))


def test_levels_and_limits_come_from_the_bundle(tab: Page, bundle: Bundle) -> None:
    shown = json.loads(tab.evaluate("async () => JSON.stringify(await (await fetch('/demo/bundle')).json())"))
    assert (shown["levels"], shown["fingerprint"]) == (bundle.manifest.levels, bundle.fingerprint.hex())
    body = """const encoder = await m.openEncoder({...g0, limits: {...g0.limits, encode_bytes: 2500000}});
        const blob = new Blob([new Uint8Array(2500001)]);
        return [encoder.where, encoder.reason, await encoder.encode({blob}).catch((error) => error.message)];"""
    where, reason, refused = Module(tab, "encoder").run(body, shown)
    assert where == "server"
    assert reason == "onnxruntime-web is not installed there (splitcodec demo-assets)"
    assert refused == "This file is larger than 2 MB, the most that the server takes. Choose a smaller one."
