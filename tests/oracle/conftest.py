"""Models are compared with others' here; the laws run the same ones with checked signatures."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True, scope="module")
def _unchecked(unchecked_signatures: None) -> None:
    pass
