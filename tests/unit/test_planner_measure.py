from __future__ import annotations

import torch
from torch.nn import functional as F

from groundup.planner import measure


def test_products_cost_two_operations_for_each_pair():
    a, b = torch.zeros(3, 5), torch.zeros(5, 7)
    assert measure.count_flops(lambda: a @ b) == 2 * 3 * 5 * 7


def test_fused_attention_is_counted_as_its_products():
    q = torch.zeros(2, 4, 16, 8, requires_grad=True)
    products = 2 * 2 * 2 * 4 * 16 * 16 * 8
    attend = lambda: F.scaled_dot_product_attention(q, q, q, is_causal=True)  # noqa: E731
    assert measure.count_flops(attend) == products
    assert measure.count_flops(lambda: attend().sum().backward()) == 3 * products


def test_peak_follows_what_is_held():
    before = measure.peak_rss_bytes()
    held = torch.ones(2**26)
    assert measure.peak_rss_bytes() - before > 0.9 * held.nbytes - max(0, before - measure.process_bytes())
    assert measure.peak_bytes("cpu") >= measure.process_bytes() > held.nbytes


def test_peak_can_be_forgotten_where_the_system_allows():
    big = torch.ones(2**26)
    peak = measure.peak_rss_bytes()
    del big
    if measure.reset_peak():
        assert measure.peak_rss_bytes() < peak
    else:
        assert measure.peak_rss_bytes() >= peak
