"""The page at /demo, mounted on the edge's app: both shores in a browser.   files: static/   used by: `serve --demo`

    GET  /demo                  the page; its scripts, styles and photographs below
    GET  /demo/bundle           what the page must know of the bundle
    GET  /demo/tables, contexts, encoder.onnx, ort/...      what a browser needs to encode by itself
    POST /demo/encode           a picture file -> packets of all levels, where the browser cannot
    POST /demo/picture?tasks=   a JPEG -> what the uncompressed networks say of it

None of it is there without `mount`. Strangers may post pictures, so bodies, pixels, time and the number of callers are
bounded, and refusals are problem documents like the server's own.
"""

from __future__ import annotations

import base64
import gzip
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from importlib.resources import files
from typing import Annotated, final

import numpy as np
from fastapi import FastAPI, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from PIL import Image
from starlette.requests import ClientDisconnect

from splitcodec.demo.assets import VERSION, Ort
from splitcodec.demo.photos import PHOTOGRAPHS
from splitcodec.demo.places import Limits, Places, Refused, read_body
from splitcodec.demo.told import about, contexts_of, tables_of, tasks_of
from splitcodec.device.client import Device
from splitcodec.device.image import load_picture
from splitcodec.device.placed import crop_bhwc
from splitcodec.edge.answer import Edge
from splitcodec.edge.problems import problem
from splitcodec.errors import BundlePart, PictureError, PictureUnreadable, SplitcodecError, TaskError
from splitcodec.wire.answer import dump_answer
from splitcodec.wire.bundle import Bundle

ROOT = "/demo"
_JPEG_START = b"\xff\xd8\xff"
_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "mjs": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "wasm": "application/wasm",
}
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; media-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
_FRESH = "no-cache"
_FOR_EVER = "public, max-age=31536000, immutable"  # for addresses that change with their content


def mount(app: FastAPI, edge: Edge, *, ort: Ort | None = None, limits: Limits | None = None) -> None:
    """Add the page to the app around `edge`; it shows the edge's first bundle.

    With `ort` (assets.find_ort) browsers encode by themselves; without, the server encodes for them.
    Raises BundlePart if the bundle lacks the encoder or the head, GraphError.
    """
    limits = limits or Limits()
    bundle = edge.bundles[0]
    work = _Work(edge, bundle, limits)
    places = Places(limits)
    _add_files(app, bundle, ort=ort, limits=limits, jpeg_tasks=work.tasks)

    async def handle(request: Request, do: Callable[[bytes], bytes], *, max_bytes: int) -> Response:
        try:
            async with places:
                data = await read_body(request.stream(), places, max_bytes=max_bytes)
                async with places.running:
                    return _response(await run_in_threadpool(do, data), "application/json")
        except PictureError as error:
            return _problem(400, str(error), error=type(error))
        except Refused as error:
            return _problem(error.status, str(error), error=error.kind)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody is left to read it

    @app.post("/demo/encode", include_in_schema=False)
    async def encode(request: Request) -> Response:
        return await handle(request, work.encode, max_bytes=limits.encode_bytes)

    @app.post("/demo/picture", include_in_schema=False)
    async def picture(request: Request, tasks: Annotated[str, Query(max_length=500)] = "classify") -> Response:
        wanted = tuple(task.strip() for task in tasks.split(","))
        return await handle(request, partial(work.picture, tasks=wanted), max_bytes=limits.jpeg_bytes)


@final
class _Work:
    """What the two posts do, in a thread: picture bytes in, JSON out. Raises PictureError, Refused.

    `tasks` are what a JPEG can be asked: those of the bundle, or classification alone where it has no task teachers.
    """

    def __init__(self, edge: Edge, bundle: Bundle, limits: Limits) -> None:
        self._edge = edge
        self._bundle = bundle
        self._device = Device(bundle)
        self._limits = limits
        self.tasks = tasks_of(bundle)
        side = bundle.manifest.crop
        grey_bhwc = np.zeros((1, side, side, 3), np.uint8)
        try:
            edge.picture_answer(grey_bhwc, bundle=bundle.ident, tasks=self.tasks)  # opens head and teachers
        except BundlePart:
            self.tasks = ("classify",)
            edge.picture_answer(grey_bhwc, bundle=bundle.ident)

    def encode(self, data: bytes) -> bytes:
        manifest = self._bundle.manifest
        begin = time.perf_counter()
        upright = load_picture(data, max_pixels=self._limits.pixels)
        image_bhwc = crop_bhwc(upright, resize=manifest.resize, crop=manifest.crop)
        cropped = time.perf_counter()
        latent_chw = self._device.encoder.latent_chw(image_bhwc)
        encoded = time.perf_counter()
        levels = range(manifest.levels)
        packets = [self._device.pack_latent(latent_chw, level=level) for level in levels]
        coding = (time.perf_counter() - encoded) / len(packets)  # of one level: a device codes one
        seconds = {"preprocess": cropped - begin, "encoder": encoded - cropped, "coding": coding}
        told = {
            "packets": [base64.b64encode(packet).decode() for packet in packets],
            "ms": {stage: round(1000 * spent, 3) for stage, spent in seconds.items()},
        }
        return json.dumps(told).encode()

    def picture(self, data: bytes, *, tasks: tuple[str, ...]) -> bytes:
        if unknown := [task for task in tasks if task not in self.tasks]:
            detail = f"task {unknown[0][:40]!r}; a JPEG can be asked {', '.join(self.tasks)}"
            raise Refused(404, detail, kind=TaskError)
        if not data.startswith(_JPEG_START):
            raise PictureUnreadable("not a JPEG; the page sends one")
        shown = load_picture(data, max_pixels=self._limits.jpeg_pixels)
        side = self._bundle.manifest.crop
        if shown.size != (side, side):
            shown = shown.resize((side, side), Image.Resampling.BICUBIC)
        image_bhwc = np.ascontiguousarray(np.asarray(shown, dtype=np.uint8)[None])
        return dump_answer(self._edge.picture_answer(image_bhwc, bundle=self._bundle.ident, tasks=tasks))


def _add_files(app: FastAPI, bundle: Bundle, *, ort: Ort | None, limits: Limits, jpeg_tasks: tuple[str, ...]) -> None:
    static = {one.name: one.read_bytes() for one in files("splitcodec.demo").joinpath("static").iterdir()}
    photographs = {f"{one.name}.jpg": one.read() for one in PHOTOGRAPHS}
    tables, encoder = tables_of(bundle), bundle.graph("encoder")
    contexts = b"" if bundle.contexts is None else contexts_of(bundle.contexts)
    assets = {"tables": tables, "encoder": encoder, "contexts": contexts}
    told_of_it = about(bundle, ort=ort, limits=asdict(limits), assets=assets, jpeg_tasks=jpeg_tasks)
    contexts_gzipped = gzip.compress(contexts, mtime=0)

    @app.get("/demo", include_in_schema=False)
    def page() -> Response:
        return _response(static["index.html"], _TYPES["html"])

    @app.get("/demo/", include_in_schema=False)
    def page_without_slash() -> Response:
        return Response(status_code=307, headers={**_HEADERS, "location": "../demo"})

    @app.get("/demo/static/{name}", include_in_schema=False)
    def static_file(name: str) -> Response:
        return _file(static, name, _TYPES.get(name.rpartition(".")[2], ""))

    @app.get("/demo/photos/{name}", include_in_schema=False)
    def photograph(name: str) -> Response:
        return _file(photographs, name, "image/jpeg")

    @app.get("/demo/bundle", include_in_schema=False)
    def told() -> Response:
        return _response(told_of_it, "application/json")

    @app.get("/demo/tables", include_in_schema=False)
    def integer_tables() -> Response:
        return _response(tables, "application/json", cache=_FOR_EVER)

    @app.get("/demo/contexts", include_in_schema=False)
    def context_networks() -> Response:
        if not contexts:
            return _problem(404, f"{bundle.ident} has no contexts")
        response = _response(contexts_gzipped, "application/json", cache=_FOR_EVER)
        response.headers["content-encoding"] = "gzip"
        return response

    @app.get("/demo/encoder.onnx", include_in_schema=False)
    def encoder_graph() -> Response:
        return _response(encoder, "application/octet-stream", cache=_FOR_EVER)

    @app.get(f"/demo/ort/{VERSION}/{{name}}", include_in_schema=False)
    def runtime(name: str) -> Response:
        response = _file(ort.gzipped if ort else {}, name, _TYPES.get(name.rpartition(".")[2], ""), cache=_FOR_EVER)
        if response.status_code == 200:
            response.headers["content-encoding"] = "gzip"
        return response


def _file(known: dict[str, bytes], name: str, media_type: str, *, cache: str = _FRESH) -> Response:
    if (content := known.get(name)) is None:
        return _problem(404, "the page has no such file")
    return _response(content, media_type, cache=cache)


def _response(content: bytes, media_type: str, *, cache: str = _FRESH) -> Response:
    return Response(content, media_type=media_type, headers={**_HEADERS, "cache-control": cache})


def _problem(status: int, detail: str, *, error: type[SplitcodecError] | None = None) -> Response:
    response = problem(status, detail=detail, error=error)
    again = {503: {"retry-after": "1"}, 408: {"connection": "close"}}.get(status, {})
    response.headers.update({**_HEADERS, "cache-control": "no-store", **again})
    return response
