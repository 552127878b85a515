"""Devices and electricity as published: what can be named, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from groundup.errors import ConfigError
from groundup.planner import grids, hardware
from groundup.planner.plan import plan
from unit.planner_stand_in import LLAMA

MINE = """
[mine]
device = "cuda"
memory_gb = 48
bandwidth_gb_s = 1000
tflops = { bfloat16 = 200 }
"""


@pytest.mark.parametrize(
    ("asked", "count", "name"),
    [
        ("H100-SXM", 1, "H100-SXM"),
        ("16384xH100-SXM", 16384, "H100-SXM"),
        ("8xa100-80gb", 8, "A100-SXM-80GB"),
        ("3090", 1, "RTX-3090"),
        ("2X4090", 2, "RTX-4090"),
        ("m2-max", 1, "M2-Max"),
    ],
)
def test_devices_are_named_with_how_many_there_are(asked: str, count: int, name: str):
    found, device = hardware.parse(asked)
    assert (found, device.name) == (count, name)


def test_published_figures_are_those_of_the_sheets():
    h100 = hardware.parse("H100")[1]
    assert h100.memory_bytes == 80 * 2**30
    assert (h100.flops_per_second["bfloat16"], h100.bandwidth_bytes_per_second) == (989e12, 3350e9)  # without sparsity
    assert (h100.watts, h100.link_bytes_per_second, h100.node) == (700, 450e9, 8)
    assert h100.machine().matrix_rate("bfloat16") == pytest.approx(hardware.PRODUCT_SHARE * 989e12)
    assert all(device.source for device in hardware.devices().values())


def test_no_two_devices_have_a_name_in_common():
    names = [name.lower() for device in hardware.devices().values() for name in (device.name, *device.aliases)]
    assert len(names) == len(set(names))


def test_a_file_of_the_users_own_describes_devices_too(tmp_path: Path):
    file = tmp_path / "mine.toml"
    file.write_text(MINE)
    for asked in (f"4x{file}", f"4x{file}:mine"):
        count, device = hardware.parse(asked)
        assert (count, device.name, device.flops_per_second) == (4, "mine", {"bfloat16": 200e12})
    file.write_text(MINE + MINE.replace("[mine]", "[other]"))
    with pytest.raises(ConfigError, match=r"describes mine, other; name one, as in .*mine\.toml:NAME"):
        hardware.parse(str(file))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("not = [toml", "cannot be read as TOML"),
        ("mine = 3", r"mine is 3; expected a table of figures, \[mine\]"),
        (MINE.replace("memory_gb = 48\n", ""), "mine needs memory_gb"),
        (MINE.replace("memory_gb = 48", "memory_gb = 48\nwats = 3"), "no figure 'wats'; did you mean 'watts'"),
        (MINE.replace("48", "-1"), "memory_gb=-1; expected a number above 0"),
        (MINE.replace("48", "true"), "memory_gb=True; expected a number above 0"),
        (MINE.replace("200", '"fast"'), r"tflops\.bfloat16='fast'; expected a number above 0"),
        (MINE.replace("{ bfloat16 = 200 }", "200"), "tflops=200; expected dict"),
        (MINE.replace("bfloat16", "int8"), "needs tflops of float32 or bfloat16"),
        (MINE.replace("48", "1" + 400 * "0"), "has a memory_gb that is not between 1e-06 and"),
        (MINE.replace("48", "1e-9"), "has a memory_gb that is not between 1e-06 and"),
        (MINE + "node = 1.5", "node=1.5; expected a whole number of devices"),
        (MINE + "node = 0", "node=0; expected a number above 0"),
        (MINE + "aliases = [1, 2]", r"aliases=\[1, 2\]; expected a list of texts"),
        (MINE.replace("200", "200, bfloat = 3"), "has tflops of 'bfloat'; did you mean 'bfloat16'"),
        (MINE.replace("[mine]", '[""]'), "has the name ''; give it one in a line"),
        (MINE.replace("[mine]", '["a\\nb"]'), "has the name 'a.nb'; give it one in a line"),
        ("a = " + 100_000 * "[" + 100_000 * "]", "cannot be read as TOML .maximum recursion"),
        (MINE + 2**20 * "#", "has more than 1,048,576 bytes"),
        (MINE.replace('"cuda"', '"tpu"'), "device='tpu'; expected cpu or cuda or mps"),
    ],
)
def test_a_file_that_cannot_be_says_why(text: str, says: str, tmp_path: Path):
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=says):
        hardware.parse(str(file))


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("H1000", "there is no device 'H1000'; did you mean"),
        ("0xH100", "asks for 0 devices; give 1 to 1,000,000"),
        (5000 * "1" + "xH100", "a number of devices with 5000 digits; give 1 to 1,000,000"),
        ("99999999xH100", "asks for 99,999,999 devices"),
        ("", "names no device; give one such as 8xH100-SXM"),
        ("nowhere.toml", "nowhere.toml cannot be read"),
    ],
)
def test_devices_that_are_not_there_are_refused(asked: str, says: str):
    with pytest.raises(ConfigError, match=says):
        hardware.parse(asked)


def test_a_device_without_a_rate_in_float32_has_a_sixteenth_of_its_rate_in_bfloat16(tmp_path: Path):
    file = tmp_path / "mine.toml"
    file.write_text(MINE)
    machine = hardware.parse(str(file))[1].machine()
    assert machine.matrix_rate("float32") == pytest.approx(machine.matrix_rate("bfloat16") / 16)
    assert plan(LLAMA, on=str(file)).step_seconds > 0


@pytest.mark.parametrize(
    ("text", "says"),
    [("dp=2", "takes 2 devices, and there is 1"), ("garbage", "has no size 'garbage'"), ("dp=1,dp=1", "says dp twice")],
)
def test_a_layout_of_one_device_is_checked_too(text: str, says: str):
    with pytest.raises(ConfigError, match=says):
        plan(LLAMA, on="H100", layout=text)


def test_electricity_has_the_names_that_people_use():
    assert {grids.find(name).grams_per_kwh for name in ("FR", "fra", "France")} == {56.039}
    assert grids.find("gcp:europe-west4").name == "Netherlands (Eemshaven)"
    assert grids.find("US-CA").name == "California"
    assert grids.find("world").grams_per_kwh == 475
    with pytest.raises(ConfigError, match="there is no region 'Frnce'; did you mean 'france'"):
        grids.find("Frnce")
