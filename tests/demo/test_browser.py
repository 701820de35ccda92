"""The page in a real browser: its coder against the golden vectors, its crop against the device's, and a visitor."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

pytest.importorskip("fastapi")

from splitcodec import Device, Edge
from splitcodec.demo.assets import find_ort
from splitcodec.demo.photos import PHOTOGRAPHS
from splitcodec.demo.web import mount
from splitcodec.device.image import load_picture
from splitcodec.device.placed import crop_bhwc
from splitcodec.edge.server import BackgroundServer, create_app, read_settings
from splitcodec.wire.bundle import Bundle, open_bundle
from splitcodec.wire.png import write_png
from tests.demo.conftest import missing

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Request

SIZES = {"wide": (1280, 900), "narrow": (390, 844)}
GOLDEN = Path(__file__).parents[1] / "golden" / "packets.json"
MODULES = "/demo/static"
SHIPPED = open_bundle("efficientnet-lite0").manifest
TOP, DEFAULT = SHIPPED.levels - 1, SHIPPED.default_level


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return open_bundle("efficientnet-lite0")


@pytest.fixture(scope="module")
def device(bundle: Bundle) -> Device:
    return Device(bundle, threads=1)


@pytest.fixture(scope="module")
def edge(bundle: Bundle) -> Edge:
    return Edge(bundle, threads=1)


@pytest.fixture(scope="module")
def url(edge: Edge) -> Iterator[str]:
    app = create_app(edge, read_settings())
    mount(app, edge, ort=find_ort())
    with BackgroundServer(app) as server:
        yield server.url


class Visit:
    """One tab, what it asked for and what it complained of."""

    def __init__(self, browser: Browser, url: str, *, size: str = "wide") -> None:
        width, height = SIZES[size]
        self.context = browser.new_context(viewport={"width": width, "height": height}, permissions=["camera"])
        self.context.set_default_timeout(30_000)
        self.page: Page = self.context.new_page()
        self.requests: list[Request] = []
        self.complaints: list[str] = []
        self.url = url
        self.page.on("request", self._asked)
        self.page.on("filechooser", lambda _: None)  # from now on choosers are caught, also the first
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda told: self.complaints.append(told.text) if told.type == "error" else None)

    def _asked(self, request: Request) -> None:
        self.requests.append(request)

    def open(self, query: str = "") -> None:
        self.page.goto(f"{self.url}/demo{query}")
        self.settled()

    def settled(self) -> None:
        """Wait until nothing is under way."""
        self.page.locator("#pair[aria-busy=false]").wait_for()

    def drop(self, data: bytes, name: str, media_type: str) -> None:
        """Drop a file on the page, and wait until its answers are there."""
        script = """async ([data, name, type]) => {
            const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], name, {type}));
            dispatchEvent(new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true}));
        }"""
        self.page.evaluate(script, [base64.b64encode(data).decode(), name, media_type])
        self.settled()

    def posted(self, path: str) -> list[bytes]:
        """Return the bodies of all posts to a path, oldest first."""
        return [one.post_data_buffer or b"" for one in self.requests if urlsplit(one.url).path == path]

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()

    def check(self) -> None:
        """Nothing left the origin, nothing was complained of, nothing is wider than the window."""
        assert {f"{urlsplit(one.url).scheme}://{urlsplit(one.url).netloc}" for one in self.requests} == {self.url}
        assert self.complaints == []
        assert self.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.fixture
def visit(chromium: Browser, url: str, request: pytest.FixtureRequest) -> Iterator[Visit]:
    one = Visit(chromium, url, size=getattr(request, "param", "wide"))
    yield one
    one.context.close()


@pytest.fixture
def blank(visit: Visit) -> Page:
    """Return a tab of the page's origin that runs nothing by itself."""
    visit.page.goto(f"{visit.url}/demo/bundle")
    return visit.page


def png(array: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "png")
    return file.getvalue()


def jpeg(picture: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, "jpeg", **options)
    return file.getvalue()


PACK = """async ([modules, text, tables, fingerprint]) => {
    const cases = JSON.parse(text);
    const { encodePayload, encodeRuns, pack } = await import(`${modules}/coder.js`);
    const { openContexts, runsOf } = await import(`${modules}/contexts.js`);
    const contexts = tables ? null : openContexts(await (await fetch("/demo/contexts")).json());
    tables ??= await (await fetch("/demo/tables")).json();
    return cases.map(({level, rows, cols, symbols}) => {
        const runs = contexts && runsOf(symbols, level, rows, cols, contexts);
        const payload = runs ? encodeRuns(runs, contexts) : encodePayload(Int32Array.from(symbols), level, tables);
        const packet = pack({level, coding: runs ? 2 : 0, fingerprint, rows, cols, payload});
        return Array.from(packet, (byte) => byte.toString(16).padStart(2, "0")).join("");
    });
}"""


def case(symbols_chw: NDArray[Any], level: int) -> dict[str, Any]:
    return {
        "level": level,
        "rows": symbols_chw.shape[1],
        "cols": symbols_chw.shape[2],
        "symbols": symbols_chw.ravel().tolist(),
    }


def test_its_coder_gives_the_pinned_packets(blank: Page) -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    cases = [case(np.array(one["symbols_chw"]), one["level"]) for one in golden["cases"]]
    packets = blank.evaluate(PACK, [MODULES, json.dumps(cases), golden["tables"], golden["fingerprint"]])
    assert packets == [one["packet"] for one in golden["cases"]]


@pytest.mark.parametrize("grid", [(1, 1), (3, 5), (14, 14)])
def test_it_codes_by_context_as_the_device_does(
    blank: Page, bundle: Bundle, device: Device, grid: tuple[int, int]
) -> None:
    random = np.random.default_rng(sum(grid))
    channels = bundle.manifest.channels
    spread_c11 = np.geomspace(6.0, 0.05, channels)[:, None, None]
    both = [(np.rint(random.laplace(0, spread_c11, (channels, *grid))), level) for level in (0, 3, 7)]
    both = [(np.clip(symbols_chw, -40, 40).astype(np.int32), level) for symbols_chw, level in both]
    expected = [device.pack(symbols_chw, level=level).hex() for symbols_chw, level in both]
    assert {packet[2:4] for packet in expected} == {"20"}
    cases = [case(symbols_chw, level) for symbols_chw, level in both]
    assert blank.evaluate(PACK, [MODULES, json.dumps(cases), None, bundle.fingerprint.hex()]) == expected


def test_what_no_row_holds_has_no_runs(blank: Page, bundle: Bundle) -> None:
    far = case(np.full((bundle.manifest.channels, 2, 2), 30_000), 0)
    script = """async ([modules, text]) => {
        const { openContexts, runsOf } = await import(`${modules}/contexts.js`);
        const contexts = openContexts(await (await fetch("/demo/contexts")).json());
        const { level, rows, cols, symbols } = JSON.parse(text);
        return runsOf(symbols, level, rows, cols, contexts);
    }"""
    assert blank.evaluate(script, [MODULES, json.dumps(far)]) is None


def test_its_coder_gives_the_devices_packets_of_the_golden_symbols(blank: Page, bundle: Bundle, device: Device) -> None:
    symbols_lnchw = np.load(io.BytesIO(bundle.read("golden/vectors.npz")))["symbols_lnchw"]
    both = [(symbols_chw, level) for level, some in enumerate(symbols_lnchw) for symbols_chw in some]
    cases = [case(symbols_chw, level) for symbols_chw, level in both]
    expected = [device.pack(symbols_chw.astype(np.int32), level=level).hex() for symbols_chw, level in both]
    assert blank.evaluate(PACK, [MODULES, json.dumps(cases), None, bundle.fingerprint.hex()]) == expected


def test_its_coder_agrees_at_the_tables_ends(blank: Page, bundle: Bundle, device: Device) -> None:
    random = np.random.default_rng(5)
    low_c, high_c = bundle.tables[0].range_of(3)
    shape = (len(low_c), 2, 3)
    columns = random.random(shape) * (high_c - low_c + 1)[:, None, None]
    arrays = [np.broadcast_to(end[:, None, None], shape) for end in (low_c, high_c)]
    arrays += [(low_c[:, None, None] + columns).astype(np.int32), np.zeros(shape, np.int32)[:, :1, :1]]
    cases = json.dumps([case(one, 3) for one in arrays])
    packets = blank.evaluate(PACK, [MODULES, cases, None, bundle.fingerprint.hex()])
    assert packets == [device.pack(one.astype(np.int32), level=3).hex() for one in arrays]


def test_it_rounds_and_clips_as_the_device_does(blank: Page, bundle: Bundle) -> None:
    tables, random = bundle.tables[0], np.random.default_rng(6)
    latent_chw = random.normal(0, 30, (bundle.manifest.channels, 4, 5)).astype(np.float32)
    ties = (np.round(latent_chw) + 0.5).astype(np.float32) / tables.gain_lc[2][:, None, None]
    latent_chw[:, :2] = ties[:, :2]
    script = """async ([modules, latent]) => {
        const { quantise } = await import(`${modules}/coder.js`);
        const tables = await (await fetch("/demo/tables")).json();
        const symbols = Array.from(quantise(Float32Array.from(latent), 2, tables));
        latent[7] = NaN;
        try { quantise(Float32Array.from(latent), 2, tables); } catch (error) { return [symbols, error.message]; }
    }"""
    symbols, refusal = blank.evaluate(script, [MODULES, latent_chw.ravel().tolist()])
    assert symbols == tables.quantise(latent_chw, 2).ravel().tolist()
    assert "NaN" in refusal


CROP = """async ([modules, data, type, shape]) => {
    const { cropPicture, openPicture } = await import(`${modules}/picture.js`);
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    const {side, rgb} = cropPicture(await openPicture(new Blob([bytes], {type}), 32e6), shape);
    let text = "";
    for (const byte of rgb) text += String.fromCharCode(byte);
    return btoa(text);
}"""


def crops(page: Page, data: bytes, media_type: str, *, resize: int = 256, crop: int = 224) -> tuple[Any, Any]:
    """Return the browser's crop and the device's, int16."""
    text = base64.b64encode(data).decode()
    got = page.evaluate(CROP, [MODULES, text, media_type, {"resize": resize, "crop": crop}])
    theirs = np.frombuffer(base64.b64decode(got), np.uint8).reshape(crop, crop, 3)
    ours = crop_bhwc(load_picture(data), resize=resize, crop=crop)[0]
    return theirs.astype(np.int16), ours.astype(np.int16)


@pytest.mark.parametrize("size", [(224, 224), (256, 300), (333, 200), (97, 1201), (1500, 1111), (5, 9), (256, 341)])
def test_its_crop_is_pillows_bit_for_bit(blank: Page, size: tuple[int, int]) -> None:
    random = np.random.default_rng(size)
    noise_hwc = random.integers(0, 256, (*size, 3), dtype=np.uint8)
    noise_hwc[: size[0] // 3] = noise_hwc[: size[0] // 3] // 128 * 255  # overshoots at hard edges are clipped alike
    theirs, ours = crops(blank, png(noise_hwc), "image/png")
    assert np.array_equal(theirs, ours)


def test_its_crop_of_photographs_is_the_devices(blank: Page) -> None:
    for photograph in PHOTOGRAPHS:
        theirs, ours = crops(blank, photograph.read(), "image/jpeg")
        assert np.abs(theirs - ours).max() <= 1


def test_turned_grey_and_transparent_pictures_are_the_devices(blank: Page) -> None:
    with Image.open(io.BytesIO(PHOTOGRAPHS[1].read())) as picture:
        exif = Image.Exif()
        exif[0x0112] = 6
        turned, grey = jpeg(picture, exif=exif), jpeg(picture.convert("L"))
        half = picture.convert("RGBA")
    half.putalpha(Image.linear_gradient("L").resize(half.size))
    transparent = png(np.asarray(half))
    for data, media_type in ((turned, "image/jpeg"), (grey, "image/jpeg"), (transparent, "image/png")):
        theirs, ours = crops(blank, data, media_type)
        assert np.abs(theirs - ours).max() <= 2


LEAN = """async ([modules, data]) => {
    const { lean } = await import(`${modules}/lean.js`);
    const bytes = lean(Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0)));
    return btoa(String.fromCharCode(...bytes));
}"""


@pytest.mark.parametrize("quality", [1, 5, 50, 90])
def test_jpegs_get_the_shortest_tables_and_keep_their_pixels(blank: Page, quality: int) -> None:
    for photograph in PHOTOGRAPHS[:2]:
        with Image.open(io.BytesIO(photograph.read())) as picture:
            small = picture.resize((100, 75))
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        before, best = (
            jpeg(small, quality=quality, icc_profile=profile, comment=b"ours"),
            jpeg(small, quality=quality, optimize=True),
        )
        after = base64.b64decode(blank.evaluate(LEAN, [MODULES, base64.b64encode(before).decode()]))
        assert len(best) - 14 <= len(after) <= len(best) < len(before)  # one segment of tables, not four
        with Image.open(io.BytesIO(after)) as one, Image.open(io.BytesIO(before)) as other:
            assert np.array_equal(np.asarray(one), np.asarray(other))


def test_other_jpegs_are_left_as_they_are(blank: Page) -> None:
    with Image.open(io.BytesIO(PHOTOGRAPHS[0].read())) as picture:
        others = [jpeg(picture, progressive=True), jpeg(picture.convert("L")), jpeg(picture, restart_marker_rows=1)]
    whole = jpeg(picture)
    for one in (*others, whole[:500], b"\xff\xd8", b""):
        after = base64.b64decode(blank.evaluate(LEAN, [MODULES, base64.b64encode(one).decode()]))
        assert after == one


def test_no_jpeg_is_larger_than_its_budget(blank: Page) -> None:
    script = """async ([modules, data, budgets]) => {
        const { cropPicture, openPicture } = await import(`${modules}/picture.js`);
        const { jpegWithin } = await import(`${modules}/jpeg.js`);
        const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
        const crop = cropPicture(await openPicture(new Blob([bytes]), 32e6), {resize: 256, crop: 224});
        const found = [];
        for (const budget of budgets) found.push({...await jpegWithin(crop, budget, () => false), budget});
        return found.map(({blob, budget, side, fullFits, smallest}) =>
            ({size: blob?.size ?? null, budget, side, fullFits, smallest}));
    }"""
    data = base64.b64encode(PHOTOGRAPHS[1].read()).decode()
    none, *some = blank.evaluate(script, [MODULES, data, [60, 450, 900, 8000]])
    assert none["size"] is None
    assert none["smallest"] > 60
    for one in some:
        assert 0 < one["size"] <= one["budget"]
        assert one["size"] > 0.8 * one["budget"]
    assert some[0]["fullFits"] is False
    assert (some[-1]["fullFits"], some[-1]["side"]) == (True, 224)


@pytest.mark.parametrize(
    ("visit", "where"), [("wide", "browser"), ("narrow", "browser"), ("narrow", "server")], indirect=["visit"]
)
def test_a_visitor_drops_a_picture_and_moves_the_slider(visit: Visit, where: str, device: Device, edge: Edge) -> None:
    if where == "browser" and find_ort() is None:
        missing("onnxruntime-web", "splitcodec demo-assets")
    visit.open(f"?encode={where}")
    assert ("This browser encodes" in visit.text("#how")) == (where == "browser")
    visit.drop(PHOTOGRAPHS[3].read(), "rocket.jpg", "image/jpeg")
    slider = visit.page.get_by_role("slider", name="Rate level")
    slider.fill("0")
    visit.settled()
    assert visit.text("#jpeg-bytes") == "–"  # none is so small: a JPEG's tables alone are more
    assert "none is so small" in visit.text("#jpeg-note")
    data = PHOTOGRAPHS[1].read()
    visit.drop(data, "chelsea.jpg", "image/jpeg")
    visit.settled()
    for level in (6, 2):
        slider.fill(str(level))
        size = len(device.encode(data, level=level))
        visit.settled()
        packet, sent_jpeg = visit.posted("/v1/answer")[-1], visit.posted("/demo/picture")[-1]
        assert packet[0] & 15 == level
        assert visit.text("#ours-bytes") == f"{len(packet):,}"
        assert visit.text("#jpeg-bytes") == f"{len(sent_jpeg):,}"
        assert len(sent_jpeg) <= len(packet)
        assert abs(len(packet) - size) <= (0.02 * size if where == "browser" else 0)
        first = edge.answer(packet)["answers"]["classify"][0]
        assert visit.page.locator("#ours-answers li").first.inner_text().startswith(first["label"].split(",")[0])
        assert visit.page.locator("#ours-answers li").count() == 5
    stages = ["preprocess", "encoder", "coding", "link", "decode", "decoder", "tail", "backbone", "detect"]
    assert visit.page.locator("#times dt").all_inner_texts() == stages
    visit.page.get_by_label("Street scene, labelled").check()
    visit.settled()
    assert visit.page.locator("#times dt").all_inner_texts() == [*stages, "segment"]
    visit.page.get_by_label("Objects").uncheck()
    visit.settled()
    assert visit.page.locator("#times dt").all_inner_texts() == [*stages[:-1], "segment"]
    visit.check()


def test_a_budget_takes_the_best_level_that_fits(visit: Visit, device: Device) -> None:
    visit.open("?encode=server")
    data = PHOTOGRAPHS[0].read()
    sizes = [len(device.encode(data, level=level)) for level in range(TOP + 1)]
    visit.page.get_by_text("Byte budget", exact=True).first.click()
    number = visit.page.get_by_role("spinbutton", name="at most")
    for level in (2, 5):
        number.fill(str(sizes[level]))
        visit.settled()
        assert visit.text("#ours-bytes") == f"{sizes[level]:,}"
        assert visit.text("#ours-note") == f"rate level {level} of {TOP}"
    sent = len(visit.posted("/v1/answer"))
    number.fill("13")
    visit.page.get_by_role("alert").get_by_text(f"the smallest of this picture has {min(sizes):,} bytes").wait_for()
    assert visit.text("#ours-bytes") == "–"
    assert len(visit.posted("/v1/answer")) == sent
    visit.check()


def test_the_keyboard_does_everything(visit: Visit) -> None:
    visit.open("?encode=server")
    page, keys = visit.page, visit.page.keyboard
    seen = []
    for _ in range(5):
        keys.press("Tab")
        seen.append(page.evaluate("document.activeElement.querySelector('img').alt"))
    assert seen == [photograph.title for photograph in PHOTOGRAPHS]
    keys.press("Shift+Tab")
    keys.press("Enter")
    visit.settled()
    assert page.get_by_role("button", name=PHOTOGRAPHS[3].title, pressed=True).is_visible()
    keys.press("Tab")
    keys.press("Tab")
    with page.expect_file_chooser() as chooser:
        keys.press("Enter")
    chooser.value.set_files({"name": "x.jpg", "mimeType": "image/jpeg", "buffer": PHOTOGRAPHS[2].read()})
    page.get_by_role("img", name="x.jpg, as the encoder sees it").wait_for()
    visit.settled()
    keys.press("Tab")  # camera
    keys.press("Tab")  # the two ways to choose a rate
    keys.press("Tab")
    before = page.get_by_role("slider", name="Rate level").input_value()
    keys.press("ArrowLeft")
    visit.settled()
    assert page.get_by_role("slider", name="Rate level").input_value() == str(int(before) - 1)
    keys.press("Shift+Tab")
    keys.press("ArrowRight")
    visit.settled()
    assert page.get_by_role("radio", name="Byte budget").is_checked()
    keys.press("Tab")
    assert page.evaluate("document.activeElement.id") == "budget"
    keys.press("End")
    visit.settled()
    assert visit.text("#ours-note") == f"rate level {TOP} of {TOP}"
    visit.check()


def test_everything_has_a_name_that_can_be_read_out(visit: Visit) -> None:
    visit.open("?encode=server")
    page = visit.page
    roles = re.findall(
        r"^ *- (button|slider|radio|img|list|heading|region|article|group)\b(.*)", tree(page), re.MULTILINE
    )
    assert {role for role, _ in roles} >= {"button", "slider", "radio", "img", "list", "heading"}
    assert [role for role, name in roles if not name.startswith(' "')] == []
    slider = page.get_by_role("slider", name="Rate level")
    assert slider.get_attribute("aria-valuetext") == f"level {DEFAULT} of {TOP}, {visit.text('#ours-bytes')} bytes"
    assert "bytes: espresso. JPEG, " in page.get_by_role("status").inner_text()
    assert page.locator("html").get_attribute("lang") == "en"


def tree(page: Page) -> str:
    """Return what a screen reader gets to know of the page."""
    return page.locator("body").aria_snapshot()


def test_the_camera_gives_a_picture(visit: Visit) -> None:
    visit.open("?encode=server")
    visit.page.get_by_role("button", name="Camera", exact=True).click()
    visit.page.get_by_role("button", name="Take the picture").click()
    visit.page.get_by_role("img", name="The camera’s picture, as the encoder sees it").wait_for()
    visit.settled()
    assert not visit.page.get_by_role("dialog").is_visible()
    assert visit.page.locator("#jpeg-answers li").count() == 5
    visit.check()


def test_failures_are_told_and_mended(visit: Visit) -> None:
    visit.open("?encode=server")
    page, alert = visit.page, visit.page.get_by_role("alert")
    slider = page.get_by_role("slider", name="Rate level")
    visit.context.set_offline(True)
    slider.fill("1")
    alert.get_by_text("The server does not answer. Is splitcodec serve --demo still running?").wait_for()
    visit.context.set_offline(False)
    slider.fill("2")
    visit.settled()
    assert visit.text("#problem") == ""
    visit.drop(b"no picture", "x.txt", "text/plain")
    alert.get_by_text("not a picture that your browser can open").wait_for()
    page.route("**/v1/answer*", lambda route: route.fulfill(status=503, headers={"retry-after": "3"}))
    page.get_by_role("button", name=PHOTOGRAPHS[1].title).click()
    alert.get_by_text("The server is busy. Try again in 3 s.").wait_for()
    problem = {
        "type": "urn:splitcodec:PacketBundle",
        "title": "PacketBundle",
        "status": 400,
        "detail": "made elsewhere",
    }
    page.unroute("**/v1/answer*")
    page.route("**/v1/answer*", lambda route: route.fulfill(status=400, json=problem))
    slider.fill("3")
    alert.get_by_text("The server refused this (400). PacketBundle: made elsewhere").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_token_is_asked_for_and_sent(visit: Visit) -> None:
    page = visit.page

    def guard(route: Any) -> None:
        known = route.request.headers.get("authorization") == "Bearer sesame"
        route.continue_() if known else route.fulfill(status=401)

    page.route("**/v1/answer*", guard)
    visit.page.goto(f"{visit.url}/demo?encode=server")
    page.get_by_label("The server asks for a token").fill("sesame")
    page.get_by_role("button", name="Use it").click()
    page.locator("#jpeg-answers li").nth(4).wait_for()
    assert not page.locator("#token").is_visible()


def test_boxes_and_masks_are_drawn(visit: Visit) -> None:
    guesses = [{"index": 1, "label": "cup, mug", "p": 0.9}]
    box = {"index": 1, "label": "cup", "score": 0.9, "box": [0.5, 0.5, 0.75, 0.75]}
    unsure = {**box, "score": 0.45, "box": [0.1, 0.6, 0.4, 0.9]}
    colours = np.array([[255, 0, 0], [0, 0, 255]], np.uint8)
    png = base64.b64encode(write_png(np.array([[1, 0], [0, 0]], np.uint8), colours)).decode()
    classes = [{"index": 0, "label": "sky", "share": 0.75}, {"index": 1, "label": "road", "share": 0.25}]
    segment = {"size": [2, 2], "png": png, "classes": classes}
    answers = {"classify": guesses, "detect": [box, unsure], "segment": segment}
    answer = {"bundle": "b@1", "level": 4, "answers": answers, "ms": {"decode": 1.0}}
    asked: list[str] = []

    def fulfil(route: Any) -> None:
        asked.append(route.request.url)
        route.fulfill(json=answer)

    for path in ("**/v1/answer*", "**/demo/picture*"):
        visit.page.route(path, fulfil)
    visit.open("?encode=server")
    visit.page.get_by_label("Street scene, labelled").check()
    visit.settled()
    tasks = [parse_qs(urlsplit(one).query)["tasks"] for one in asked]
    assert tasks == [["classify,detect"]] * 2 + [["classify,detect,segment"]] * 2
    packets = [parse_qs(urlsplit(one).query) for one in asked if "/v1/answer" in one]
    assert [one["score"] for one in packets] == [["0.5"]] * 2  # boxes that are not drawn stay at the edge
    for side in ("ours", "jpeg"):
        check_drawn(visit.page, side)
    visit.check()


def check_drawn(page: Page, side: str) -> None:
    """Hold what is drawn over one of the two pictures against the answer above."""
    colour = """([side, x, y]) => {
        const canvas = document.getElementById(`${side}-drawn`);
        return [...canvas.getContext("2d").getImageData(x * canvas.width, y * canvas.height, 1, 1).data];
    }"""
    road, sky, edge_of_box, unsure_edge = (
        page.evaluate(colour, [side, *place]) for place in ([0.25, 0.25], [0.9, 0.1], [0.5, 0.6], [0.1, 0.7])
    )
    assert road[2] > 200 > road[0]
    assert sky[0] > 200 > sky[2]
    assert 0 < road[3] < 255  # the picture shines through
    assert edge_of_box[3] == 255
    assert unsure_edge[3] < 255
    assert page.locator(f"#{side}-classes li").all_inner_texts() == ["sky 75 %", "road 25 %"]
    shown = page.locator(f"#{side}-classes i").first.evaluate("i => getComputedStyle(i).backgroundColor")
    assert shown == "rgb(255, 0, 0)"
