"""The page of architectures is what families and mixers say of themselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_up_to_date():
    done = subprocess.run([sys.executable, ROOT / "tools" / "architectures.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
