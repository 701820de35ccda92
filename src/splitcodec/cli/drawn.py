"""What `ask --draw` writes: looked at before anything is sent, then there whole or not at all.   used by: device.py"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from splitcodec.errors import OutputError, SettingsError

if TYPE_CHECKING:
    from splitcodec.wire.answer import Answer


def check_draw(draw: Path | None, images: Sequence[Path]) -> None:
    """Refuse a drawing that cannot be written, or would replace the photograph. Raises SettingsError, OutputError."""
    if draw is None:
        return
    if len(images) != 1:
        raise SettingsError(f"--draw {draw} with {len(images)} pictures; give one")
    from splitcodec.device.overlay import unwritable

    try:
        if os.path.samefile(draw, images[0]):
            raise SettingsError(f"--draw {draw} is the photograph itself; give a name such as out.png")
    except FileNotFoundError:
        pass
    except OSError as error:
        raise _cannot(draw, error.strerror or error) from None
    if draw.is_dir():
        raise _cannot(draw, "it is a folder")
    if not draw.parent.is_dir():
        raise _cannot(draw, f"there is no folder {draw.parent}")
    if not os.access(draw.parent, os.W_OK):
        raise _cannot(draw, f"no right to write into {draw.parent}")
    if (reason := unwritable(draw.suffix)) is not None:
        raise _cannot(draw, reason)


def write_drawing(image: Path, answer: Answer, path: Path) -> None:
    """Draw an answer on its photograph, into a file. Raises OutputError."""
    from splitcodec.device.image import load_picture
    from splitcodec.device.overlay import draw

    draft = path.with_name(f".{secrets.token_hex(4)}{path.suffix}")  # whose ending says what is written
    try:
        draw(load_picture(image), answer).save(draft)
        os.replace(draft, path)
    except (OSError, ValueError) as error:
        raise _cannot(path, (error.strerror if isinstance(error, OSError) else None) or error) from None
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)


def _cannot(path: Path, reason: object) -> OutputError:
    return OutputError(f"cannot draw to {path}: {reason}; give a name such as out.png")
