from __future__ import annotations

from importlib.resources import files

from splitcodec.demo.photos import PHOTOGRAPHS
from splitcodec.device.image import load_picture


def test_every_photograph_opens_is_small_and_is_credited() -> None:
    shipped = {path.name for path in files("splitcodec.demo").joinpath("photos").iterdir()}
    assert shipped == {f"{one.name}.jpg" for one in PHOTOGRAPHS} | {"README.md"}
    notes = files("splitcodec.demo").joinpath("photos", "README.md").read_text(encoding="utf-8")
    for one in PHOTOGRAPHS:
        assert min(load_picture(one.read()).size) >= 256
        author, rights = one.credit.split(", ")
        line = next(line for line in notes.splitlines() if line.startswith(f"| `{one.name}.jpg`"))
        assert author in line
        assert rights in line
    assert sum(len(one.read()) for one in PHOTOGRAPHS) < 400_000
