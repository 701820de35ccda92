"""Sums of contexts' networks are exact, however the matrices are cut."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from splitcodec.wire import reading


@pytest.mark.parametrize("one_thread", [False, True])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (49, 432, 4), (98, 432, 60), (197, 200, 48), (0, 9, 4), (7, 2304, 512), (1970, 432, 60)]
)
def test_products_are_exact(shape: tuple[int, int, int], one_thread: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_ONE_THREAD", one_thread)
    rng = np.random.default_rng(1)
    count, inner, columns = shape
    left_nk = rng.integers(0, 256, (count, inner))
    right_km = rng.integers(-28, 28, (inner, columns))
    out_nm = np.full((count, columns), np.nan, np.float32)
    reading._multiply(left_nk.astype(np.float32), right_km.astype(np.float32), out_nm)
    np.testing.assert_array_equal(out_nm, left_nk @ right_km)


def test_no_piece_is_so_large_that_threads_start(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, matmul = list[int](), np.matmul

    def watched(left: reading.Floats, right: reading.Floats, out: reading.Floats | None = None) -> reading.Floats:
        sizes.append(left.shape[0] * left.shape[1] * right.shape[1])
        product: reading.Floats = matmul(left, right, out)
        return product

    monkeypatch.setattr(reading, "_ONE_THREAD", False)
    monkeypatch.setattr(np, "matmul", watched)
    for count, inner, columns in ((98, 432, 60), (1970, 432, 60), (129, 2304, 512)):
        reading._multiply(
            *(np.ones(shape, np.float32) for shape in ((count, inner), (inner, columns), (count, columns)))
        )
    assert max(sizes) <= 1 << 18


def test_the_command_line_asks_for_one_thread_of_blas() -> None:
    code = (
        "import sys, splitcodec.cli; assert 'numpy' not in sys.modules\n"
        "sys.argv[1:] = ['--version']\n"
        "try: splitcodec.cli.main()\n"
        "except SystemExit: pass\n"
        "import splitcodec.wire.reading; assert splitcodec.wire.reading._ONE_THREAD"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={})
