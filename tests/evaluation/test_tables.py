from __future__ import annotations

from splitcodec.evaluation.tables import count, gap, millions, signed, size, table


def test_numbers_are_said_with_their_intervals_where_they_have_one() -> None:
    assert gap(-1.2, (-2.8, 0.4)) == "-1.20 [-2.80, +0.40]"
    assert gap(0.0, None) == "+0.00"
    assert signed(-87.6, " %", (-88.94, -86.2)) == "-87.6 % [-88.9, -86.2]"
    assert signed(30.71) == "+30.7"
    assert size(1815.5, (1502.2, 2210.0)) == "1,816 [1,502 to 2,210]"
    assert size(1815.5) == "1,816"
    assert (signed(None), size(None), count(None), millions(None)) == ("-", "-", "-", "-")
    assert (count(914_728), millions(98_166_208)) == ("914,728", "98.2 M")


def test_a_bar_or_a_line_break_in_a_cell_breaks_no_table() -> None:
    assert table(("a", "b"), [("x|y", "1\n2")]) == ["| a | b |", "|---|---:|", "| x\\|y | 1 2 |"]
