from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from groundup.errors import ConfigError, SpecError
from groundup.infer.sample import Sampling
from groundup.model.decoder import Decoder
from groundup.recipes.settings import Run
from groundup.specs import MOST_ITEMS, Size, Spec, diff, override, walk

# A small world of its own: paints on the walls of rooms of houses, with every type of field that specs may have.


class Paint(Spec, abstract=True):
    """A base that is no kind itself."""


class Bare(Paint):
    shade: float = 0.5
    coats: int = 1


class Stripes(Paint):
    name: str
    bright: bool = False
    over: Paint = Bare()


class Room(Spec):
    width: int
    lamps: Size | None = None
    paint: Paint = Bare()
    doors: tuple[float, float] = (0.8, 2.1)
    marks: tuple[int, ...] = ()


class House(Spec):
    rooms: tuple[Room, ...]
    roof: Paint | None = None
    number: int | None = 7
    anything: Any = None


numbers = st.floats(allow_nan=False, allow_infinity=False)
plain = st.builds(Bare, shade=numbers, coats=st.integers())
paints = st.recursive(plain, lambda inner: st.builds(Stripes, name=st.text(), bright=st.booleans(), over=inner))
rooms = st.builds(
    Room,
    width=st.integers(),
    paint=paints,
    doors=st.tuples(numbers, numbers),
    marks=st.lists(st.integers(0, 2), max_size=3).map(tuple),
)
rows_of_rooms = st.lists(rooms, min_size=1, max_size=2).flatmap(
    lambda designs: st.lists(st.sampled_from(designs), max_size=4).map(tuple)
)
houses = st.builds(House, rooms=rows_of_rooms, roof=st.none() | plain, number=st.none() | st.integers())

HOUSE = House(rooms=(Room(width=3, paint=Stripes(name="sea")), Room(width=4), Room(width=4)), roof=Bare(coats=2))


@given(houses)
def test_spec_survives_json_and_yaml(house):
    assert House.from_dict(json.loads(json.dumps(house.to_dict()))) == house
    assert House.from_dict(yaml.safe_load(yaml.safe_dump(house.to_dict()))) == house


@given(houses)
def test_repr_is_the_constructor_call(house):
    assert eval(repr(house), dict(Spec.kinds)) == house


@given(houses, houses)
def test_equal_specs_have_equal_hashes_and_no_difference(one, other):
    again = House.from_dict(one.to_dict())
    assert (again, hash(again), diff(one, again)) == (one, hash(one), {})
    assert (one == other) == (not diff(one, other))


@given(houses)
def test_every_walked_path_leads_to_its_spec(house):
    for path, node in walk(house):
        found: Any = house
        for key in path.split(".") if path else []:
            found = found[int(key)] if isinstance(found, tuple) else getattr(found, key)
        assert found is node


@given(houses.filter(lambda house: house.rooms), st.integers())
def test_override_changes_one_leaf_and_nothing_else(house, width):
    changed = override(house, "rooms.0.width", width)
    old = house.rooms[0].width
    assert diff(house, changed) == ({} if width == old else {"rooms.0.width": (old, width)})


def test_a_number_in_place_of_parts_is_how_many_there_are_to_be():
    house = House(rooms=(Room(width=3), Room(width=4)))
    assert [room.width for room in override(house, "rooms", 5).rooms] == [3, 4, 3, 4, 3]
    assert override(house, "rooms", 1) == House(rooms=(Room(width=3),))
    for count in (0, -1, 10**9):
        with pytest.raises(ConfigError, match=rf"rooms is {count}; expected a number of parts from 1 to 100,000"):
            override(house, "rooms", count)


def test_a_field_that_does_not_exist_cannot_be_replaced():
    house: Any = HOUSE
    with pytest.raises(SpecError, match="House has no setting 'numbre'; did you mean 'number'"):
        house.replace(numbre=3)


def test_spec_is_frozen_keyword_only_and_a_key():
    house: Any = HOUSE
    paint: Any = Bare
    with pytest.raises(dataclasses.FrozenInstanceError):
        house.number = 8
    with pytest.raises(TypeError):
        paint(0.5)
    assert {HOUSE: "ours"}[HOUSE.replace(number=8).replace(number=7)] == "ours"


def test_fields_at_their_defaults_are_not_written():
    assert Room(width=3).to_dict() == {"kind": "Room", "width": 3}
    assert repr(Room(width=3, paint=Bare(coats=2))) == "Room(width=3, paint=Bare(coats=2))"
    assert Room(width=3, marks=[1]) == Room(width=3, marks=(1,))  # pyrefly: ignore[bad-argument-type]
    assert Room(width=3, marks=(1,)).settings() == {"width": 3, "marks": (1,)}


def test_runs_of_equal_specs_are_written_once():
    house = House(rooms=(Room(width=3), *[Room(width=4)] * 40))
    assert house.to_dict()["rooms"] == [
        {"kind": "Room", "width": 3},
        {"repeat": 40, "of": {"kind": "Room", "width": 4}},
    ]
    assert repr(house) == "House(rooms=(Room(width=3),) + (Room(width=4),) * 40)"


def test_runs_of_equal_numbers_are_written_in_full():
    assert Room(width=3, marks=(2, 2, 2)).to_dict()["marks"] == [2, 2, 2]


def test_walk_yields_parents_first():
    assert [path for path, _ in walk(HOUSE)] == [
        "", "rooms.0", "rooms.0.paint", "rooms.0.paint.over", "rooms.1", "rooms.1.paint", "rooms.2", "rooms.2.paint",
        "roof",
    ]  # fmt: skip


def test_kind_may_be_left_out_where_only_one_fits_and_be_written_in_any_case():
    assert House.from_dict({"rooms": [{"width": 3, "paint": "bare"}]}) == House(rooms=(Room(width=3),))
    assert Paint.from_dict({"kind": "STRIPES", "name": "sea"}) == Stripes(name="sea")


def test_spec_given_as_a_spec_is_taken_as_it_is():
    assert Room.from_dict({"width": 3, "paint": Bare(coats=2)}) == Room(width=3, paint=Bare(coats=2))


def test_text_is_read_as_the_type_of_the_field():
    assert override(Bare(), "shade", "1e-3") == Bare(shade=0.001)
    assert override(Bare(), "coats", "1e6") == Bare(coats=1_000_000)
    assert override(Stripes(name="a"), "bright", "yes") == Stripes(name="a", bright=True)
    assert override(Stripes(name="a"), "name", "12") == Stripes(name="12")
    assert override(HOUSE, "number", "none").number is None
    assert override(HOUSE, "roof", "none").roof is None
    assert override(HOUSE, "anything", "none").anything == "none"


def test_large_whole_numbers_keep_every_digit():
    assert override(Bare(), "coats", "12345678901234567891").coats == 12345678901234567891


def test_whole_number_is_read_as_a_number_and_back():
    assert type(override(Bare(), "shade", 2).shade) is float
    assert type(override(Bare(), "coats", 2.0).coats) is int


def test_star_changes_every_item_that_has_the_setting():
    assert [room.width for room in override(HOUSE, "rooms.*.width", 9).rooms] == [9, 9, 9]
    changed = override(HOUSE, "rooms.*.paint.name", "sky")
    assert diff(HOUSE, changed) == {"rooms.0.paint.name": ("sea", "sky")}


def test_star_accepts_a_value_that_is_set_already():
    assert override(HOUSE, "rooms.*.paint.name", "sea") == HOUSE


def test_items_are_overridden_whole():
    assert override(HOUSE, "rooms.0", {"width": 5}).rooms[0] == Room(width=5)
    assert override(HOUSE, "rooms.0.doors.1", "2").rooms[0].doors == (0.8, 2.0)
    assert override(HOUSE, "rooms.0.marks", ["1", 2]).rooms[0].marks == (1, 2)


def test_override_of_a_spec_changes_its_kind():
    assert override(HOUSE, "roof", "bare").roof == Bare()
    assert override(HOUSE, "roof", {"kind": "stripes", "name": "sea"}).roof == Stripes(name="sea")


def test_difference_of_kinds_and_lengths_is_told_by_path():
    one, other = Room(width=3), Room(width=3, paint=Stripes(name="sea", over=Bare(shade=0.1)), marks=(5,))
    assert diff(one, other) == {
        "paint.kind": ("Bare", "Stripes"),
        "paint.shade": (0.5, None),
        "paint.coats": (1, None),
        "paint.name": (None, "sea"),
        "paint.bright": (None, False),
        "paint.over.kind": (None, "Bare"),
        "paint.over.shade": (None, 0.1),
        "paint.over.coats": (None, 1),
        "marks.0": (None, 5),
    }


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("number", True, "number is True; expected a whole number"),
        ("number", 7.5, "number is 7.5; expected a whole number"),
        ("number", "seven", "number is 'seven'; expected a whole number"),
        ("number", [7], r"number is \[7\]; expected a whole number"),
        ("number", float("inf"), "number is inf; expected a whole number"),
        ("roof.shade", False, "roof.shade is False; expected a finite number"),
        ("roof.shade", "dark", "roof.shade is 'dark'; expected a finite number"),
        ("roof.shade", "nan", "roof.shade is 'nan'; expected a finite number"),
        ("roof.shade", 10**400, "roof.shade is 1000+; expected a finite number"),
        ("roof.shade", None, "roof.shade is None; expected a finite number"),
        ("rooms.0.paint.bright", 1, "rooms.0.paint.bright is 1; expected true or false"),
        ("rooms.0.paint.bright", "maybe", "rooms.0.paint.bright is 'maybe'; expected true or false"),
        ("rooms.0.paint.name", 5, "rooms.0.paint.name is 5; expected text"),
        ("rooms.0.paint", [Bare()], r"is \[Bare\(\)\]; expected a mapping with the settings of Bare or Stripes"),
        ("rooms.0.paint", 3, "rooms.0.paint is 3; expected a mapping with the settings of Bare or Stripes"),
        ("rooms.0.paint", {}, "rooms.0.paint needs a kind of Paint; choose from Bare, Stripes"),
        ("rooms.0.paint", "Stripe", "rooms.0.paint has the unknown kind 'Stripe'; did you mean 'Stripes'?"),
        ("rooms.0.paint", "Room", "has the unknown kind 'Room'; choose from Bare, Stripes"),
        ("rooms.0.paint", "stripes", "Stripes needs rooms.0.paint.name"),
        ("rooms.0.marks", "12", "rooms.0.marks is '12'; expected a list"),
        ("rooms.0.marks", [1, "two"], "rooms.0.marks.1 is 'two'; expected a whole number"),
        ("rooms.0.doors", [1.0], r"rooms.0.doors is \[1.0\]; expected 2 items"),
        ("rooms", [{"repeat": 0, "of": {"width": 3}}], "rooms.0.repeat is 0; expected 1 or more"),
        ("rooms", [{"repeat": 10**9, "of": {"width": 3}}], "rooms.0.repeat is 1000000000; .* 100,000 items in all"),
        (
            "rooms",
            [{"repeat": MOST_ITEMS, "of": {"width": 3}}] * 2,
            "rooms.1.repeat is 100000; .* 100,000 items in all",
        ),
        ("rooms", [{"repeat": 2, "of": {"width": "wide"}}], "rooms.0.width is 'wide'; expected a whole number"),
    ],
)
def test_value_of_another_type_is_refused_with_its_path(path, value, message):
    with pytest.raises(ConfigError, match=message):
        override(HOUSE, path, value)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nummer", r"nummer: House has no setting 'nummer'; did you mean 'number'\?"),
        ("rooms.*.paint.nam", r"Stripes has no setting 'nam'; did you mean 'name'\?"),
        ("rooms.1.paint.x", "Bare has no setting 'x'; known: shade, coats"),
        ("rooms.3.width", r"'3' is not an item; choose \* or a number from 0 to 2"),
        ("rooms.-1.width", r"'-1' is not an item; choose \* or a number from 0 to 2"),
        ("rooms.width", r"'width' is not an item; choose \* or a number from 0 to 2"),
        ("rooms.0.marks.*", r"'\*' is not an item; there are none"),
        ("number.digits", "number.digits goes on below 7, which has no settings; drop .digits"),
        ("", "House has no setting ''; known: rooms, roof, number, anything"),
    ],
)
def test_path_that_leads_nowhere_is_refused(path, message):
    with pytest.raises(ConfigError, match=message):
        override(HOUSE, path, 1)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"rooms": [], "rooof": None}, r"House has no setting rooof; did you mean 'roof' or 'rooms'\?"),
        (
            {"rooms": [{"width": 1, "zzz": 2}]},
            "Room has no setting rooms.0.zzz; known: width, lamps, paint, doors, marks",
        ),
        ({"rooms": [{}]}, "Room needs rooms.0.width"),
        ({}, "House needs rooms"),
        ({"kind": "Hause", "rooms": []}, r"the spec has the unknown kind 'Hause'; did you mean 'House'\?"),
        ([], r"the spec is \[\]; expected a mapping with the settings of House"),
    ],
)
def test_data_that_is_no_spec_is_refused(data, message):
    with pytest.raises(ConfigError, match=message):
        House.from_dict(data)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (Bare, {"shade": "dark"}, "Bare has shade='dark'; expected a finite number"),
        (Bare, {"shade": float("inf")}, "Bare has shade=inf; expected a finite number"),
        (Bare, {"shade": float("nan")}, "Bare has shade=nan; expected a finite number"),
        (Bare, {"shade": 10**400}, r"Bare has shade=10{79} \.\.\.; expected a finite number"),
        (Bare, {"coats": True}, "Bare has coats=True; expected a whole number"),
        (Bare, {"coats": 2.0}, r"Bare has coats=2\.0; expected a whole number"),
        (Stripes, {"name": b"sea"}, "Stripes has name=b'sea'; expected text"),
        (Stripes, {"name": "sea", "bright": 1}, "Stripes has bright=1; expected true or false"),
        (Stripes, {"name": "sea", "over": Room(width=3)}, r"has over=Room\(width=3\); expected Bare or Stripes"),
        (Room, {"width": 3, "lamps": 0}, "lamps=0; expected a whole number from 1 to 2,147,483,647 or none"),
        (Room, {"width": 3, "lamps": 2**31}, "lamps=2147483648; expected a whole number from 1 to"),
        (Room, {"width": 3, "marks": ["x"]}, r"Room has marks=\('x',\); expected a tuple of a whole number"),
        (Room, {"width": 3, "doors": (0.8,)}, "expected a tuple of a finite number, a finite number"),
        (House, {"rooms": (Room(width=3), 4)}, "House has rooms=.*; expected a tuple of Room"),
    ],
)
def test_spec_is_not_made_with_a_value_that_its_annotation_excludes(kind, changes, message):
    with pytest.raises(SpecError, match=message):
        kind(**changes)


def test_every_kind_of_the_package_checks_its_fields():
    kinds = [
        kind for kind in Spec.kinds.values() if kind.__module__.startswith("groundup.") and dataclasses.fields(kind)
    ]
    assert {Run, Decoder, Sampling} <= set(kinds)
    for kind in kinds:
        spec = object.__new__(kind)
        for field in dataclasses.fields(kind):
            object.__setattr__(spec, field.name, object())
        with pytest.raises(SpecError, match=f"{kind.__name__} has .* expected"):
            spec.__post_init__()


def test_whole_number_is_taken_for_a_number():
    assert Bare(shade=1) == Bare(shade=1.0)


def test_annotation_of_a_name_that_no_module_has_is_told():
    shed = type("Shed", (Spec,), {"__annotations__": {"roof": "Slate"}})
    with pytest.raises(SpecError, match="Shed: name 'Slate' is not defined; define it at the top of the module"):
        shed(roof=None)


def test_name_of_a_spec_is_given_once():
    with pytest.raises(SpecError, match=r"there is a spec Room in \S*test_specs already"):
        type("Room", (Spec,), {"__module__": "elsewhere"})
    assert Spec.kinds["Room"] is Room


def test_spec_may_be_defined_again_at_its_place():
    for default in (1, 2):

        class Cell(Spec):
            size: int = default

        assert Spec.kinds["Cell"] is Cell
        assert Spec.from_dict({"kind": "cell"}) == Cell(size=default)


def test_a_field_named_kind_is_refused():
    with pytest.raises(SpecError, match="has a field named kind"):
        type("Confused", (Spec,), {"__annotations__": {"kind": str}, "kind": "a"})
