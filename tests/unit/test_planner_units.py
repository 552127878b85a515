from __future__ import annotations

import pytest

from groundup.planner import units


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (999, "999"), (1000, "1.00K"), (124439808, "124.4M"), (8030261248, "8.03B")]
)
def test_counts_have_the_fields_letters(number, text):
    assert units.count(number) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (1320702444, "1.23 GiB"), (2**50, "1.00 PiB")],
)
def test_memory_is_in_powers_of_1024(number, text):
    assert units.bytes_(number) == text


def test_operations_are_in_powers_of_1000():
    assert units.flops(854.4e6) == "854.4 MFLOP"
    assert units.flops(3.14e23) == "314.0 ZFLOP"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0021, "2.10 ms"),
        (0.9999, "1.00 s"),
        (12.34, "12.3 s"),
        (59.97, "1 min 0 s"),
        (200, "3 min 20 s"),
        (3599.8, "1 h 0 min"),
        (3 * 3600 + 15 * 60, "3 h 15 min"),
        (86399, "1 d 0 h"),
        (2 * 86400 + 5 * 3600, "2 d 5 h"),
        (31557600 * 14.2, "14.2 years"),
    ],
)
def test_times_have_their_two_largest_units(seconds, text):
    assert units.duration(seconds) == text


def test_small_shares_keep_their_digits():
    assert [units.percent(share) for share in (0.743, 0.0999, 0.008, -0.12)] == ["74%", "10%", "0.8%", "-12%"]
