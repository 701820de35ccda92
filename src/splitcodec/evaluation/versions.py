"""Which libraries make an image codec's bytes; another build makes others.   used by: memory.py, rate.py"""

from __future__ import annotations

from PIL import features

from splitcodec.errors import SplitcodecError
from splitcodec.evaluation.machine import package_version
from splitcodec.evaluation.video import ffmpeg_version

_PILLOW = {"jpeg": "libjpeg_turbo", "webp": "webp", "avif": "avif", "jp2": "jpg_2000"}  # codec: Pillow's feature
_PACKAGES = ("pillow", "pillow-jxl-plugin", "imageio-ffmpeg")


def codec_versions() -> dict[str, str]:
    """Return the versions of the libraries and packages that code pictures; what is not installed is left out."""
    found = {name: features.version(feature) for name, feature in _PILLOW.items()}
    found |= {name: package_version(name) for name in _PACKAGES}
    try:
        found["ffmpeg"] = ffmpeg_version()
    except SplitcodecError:
        found["ffmpeg"] = None
    return {name: said for name, said in found.items() if said}
