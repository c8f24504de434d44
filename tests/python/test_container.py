"""Lists and dicts of a state: read as ever, changed by events alone."""

from __future__ import annotations

import copy
import gc
import json
import pickle
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import escqrs as es
import pytest


class Line(es.Message):
    name: str
    marks: list[int] = []


class Do(es.Command):
    """Run a function of the test with the aggregate: in the handler, or in the applier."""

    what: str


class Done(es.Event):
    what: str


class Ask(es.Command[dict[str, int]]):
    pass


class Nested(es.Command):
    pass


class Emit(es.Command):
    names: list[str] = []
    counts: dict[str, int] = {}


class Given(es.Event):
    names: list[str]
    counts: dict[str, int]


functions: dict[str, Callable[[Any], Any]] = {}
kept: list[Any] = []


class Box(es.Aggregate, snapshot_every=0):
    names: list[str]
    counts: dict[str, int]
    other_names: list[str]
    ratios: list[float]
    lines: dict[int, Line]
    times: list[datetime]

    @es.handles
    def do(self, cmd: Do) -> Any:
        if cmd.what.startswith("decide"):
            return functions[cmd.what](self)
        self.emit(Done(cmd.what))
        return None

    @es.handles
    def ask(self, cmd: Ask) -> dict[str, int]:
        return self.counts

    @es.handles
    def nested(self, cmd: Nested) -> Any:
        return [{"names": self.names}, (self.counts,)]

    @es.handles
    def give(self, cmd: Emit) -> None:
        self.emit(Given(cmd.names, cmd.counts))

    @es.applies
    def done(self, event: Done) -> None:
        functions[event.what](self)

    @es.applies
    def given(self, event: Given) -> None:
        self.names = event.names
        self.counts = event.counts


@pytest.fixture
def system() -> Iterator[es.System]:
    with es.open(":memory:", Box) as opened:
        yield opened
    functions.clear()
    kept.clear()


@pytest.fixture
def box(system: es.System) -> Any:
    handle = system[Box, "a"]
    handle.ask(Emit(["b", "a"], {"x": 1, "y": 2}))
    return handle


def decide(box: Any, function: Callable[[Any], Any]) -> Any:
    functions["decide"] = function
    return box.ask(Do("decide"))


def apply(box: Any, function: Callable[[Any], Any]) -> Any:
    """Run it in an applier, and answer the state; replay gives the same."""
    name = f"apply-{len(functions)}"
    functions[name] = function
    box.ask(Do(name))
    state = box.state
    assert box.state_at(state.version) == state
    return state


def set_item(of: Any, key: Any, value: Any) -> None:
    of[key] = value


def delete_item(of: Any, key: Any) -> None:
    del of[key]


def add_to(of: Any, more: Any) -> None:
    of += more


def times(of: Any, number: int) -> None:
    of *= number


def or_with(of: Any, more: Any) -> None:
    of |= more


LIST_CHANGES: dict[str, tuple[Callable[[Any], Any], list[str]]] = {
    "append": (lambda it: it.append("c"), ["b", "a", "c"]),
    "extend": (lambda it: it.extend(c for c in "cd"), ["b", "a", "c", "d"]),
    "insert": (lambda it: it.insert(0, "c"), ["c", "b", "a"]),
    "insert from the end": (lambda it: it.insert(-1, "c"), ["b", "c", "a"]),
    "pop": (lambda it: it.pop(), ["b"]),
    "pop(0)": (lambda it: it.pop(0), ["a"]),
    "remove": (lambda it: it.remove("b"), ["a"]),
    "clear": (lambda it: it.clear(), []),
    "reverse": (lambda it: it.reverse(), ["a", "b"]),
    "sort": (lambda it: it.sort(), ["a", "b"]),
    "sort with arguments": (lambda it: it.sort(key=ord, reverse=True), ["b", "a"]),
    "set": (lambda it: set_item(it, -1, "c"), ["b", "c"]),
    "set a slice": (lambda it: set_item(it, slice(0, 1), ["c", "d"]), ["c", "d", "a"]),
    "set every second": (lambda it: set_item(it, slice(None, None, 2), ["c"]), ["c", "a"]),
    "delete": (lambda it: delete_item(it, 0), ["a"]),
    "delete a slice": (lambda it: delete_item(it, slice(None)), []),
    "+=": (lambda it: add_to(it, ("c",)), ["b", "a", "c"]),
    "+= itself": (lambda it: add_to(it, it), ["b", "a", "b", "a"]),
    "*=": (lambda it: times(it, 2), ["b", "a", "b", "a"]),
    "__init__": (lambda it: it.__init__("cd"), ["c", "d"]),
}

DICT_CHANGES: dict[str, tuple[Callable[[Any], Any], dict[str, int]]] = {
    "set": (lambda it: set_item(it, "z", 3), {"x": 1, "y": 2, "z": 3}),
    "set again": (lambda it: set_item(it, "x", 3), {"x": 3, "y": 2}),
    "delete": (lambda it: delete_item(it, "x"), {"y": 2}),
    "clear": (lambda it: it.clear(), {}),
    "pop": (lambda it: it.pop("x"), {"y": 2}),
    "pop with a default": (lambda it: it.pop("q", None), {"x": 1, "y": 2}),
    "popitem": (lambda it: it.popitem(), {"x": 1}),
    "setdefault": (lambda it: it.setdefault("z", 3), {"x": 1, "y": 2, "z": 3}),
    "setdefault of what is there": (lambda it: it.setdefault("x", 3), {"x": 1, "y": 2}),
    "update": (lambda it: it.update({"z": 3}), {"x": 1, "y": 2, "z": 3}),
    "update with pairs and names": (
        lambda it: it.update([("z", 3)], x=0),
        {"x": 0, "y": 2, "z": 3},
    ),
    "|=": (lambda it: or_with(it, {"z": 3}), {"x": 1, "y": 2, "z": 3}),
    "__init__": (lambda it: it.__init__(z=3), {"x": 1, "y": 2, "z": 3}),
}


@pytest.mark.parametrize("how", LIST_CHANGES)
def test_a_list_changes_where_events_are_applied_only(box: Any, how: str) -> None:
    change, after = LIST_CHANGES[how]
    with pytest.raises(AttributeError, match=r"Box\.names can be changed in an @es\.applies"):
        decide(box, lambda self: change(self.names))
    with pytest.raises(AttributeError, match=r"Box\.names .*list\(\.\.\.\) of it is a copy"):
        change(box.state.names)
    with pytest.raises(AttributeError, match=r"Box\.names"):
        change(box.state_at(1).names)
    assert box.state.names == ["b", "a"] and box.version == 1
    assert apply(box, lambda self: change(self.names)).names == after


@pytest.mark.parametrize("how", DICT_CHANGES)
def test_a_dict_changes_where_events_are_applied_only(box: Any, how: str) -> None:
    change, after = DICT_CHANGES[how]
    with pytest.raises(AttributeError, match=r"Box\.counts can be changed in an @es\.applies"):
        decide(box, lambda self: change(self.counts))
    with pytest.raises(AttributeError, match=r"Box\.counts .*dict\(\.\.\.\) of it is a copy"):
        change(box.state.counts)
    assert box.state.counts == {"x": 1, "y": 2} and box.version == 1
    assert apply(box, lambda self: change(self.counts)).counts == after


def test_errors_are_those_of_lists_and_dicts(box: Any) -> None:
    def wrong(self: Any) -> None:
        for kind, change in (
            (IndexError, lambda: set_item(self.names, 9, "c")),
            (IndexError, lambda: set_item(self.names, -9, "c")),
            (IndexError, lambda: delete_item(self.names, 9)),
            (IndexError, lambda: self.names.pop(9)),
            (TypeError, lambda: set_item(self.names, "0", "c")),
            (TypeError, lambda: self.names.append()),
            (TypeError, lambda: self.names.extend(3)),
            (TypeError, lambda: self.names.pop(1, 2, 3, 4, 5, 6)),
            (ValueError, lambda: self.names.remove("q")),
            (ValueError, lambda: set_item(self.names, slice(None, None, 2), ["c", "d"])),
            (KeyError, lambda: delete_item(self.counts, "q")),
            (KeyError, lambda: self.counts.pop("q")),
            (TypeError, lambda: self.counts.update(3)),
            (TypeError, lambda: self.counts.setdefault()),
        ):
            with pytest.raises(kind):
                change()

    state = apply(box, wrong)
    assert (state.names, state.counts) == (["b", "a"], {"x": 1, "y": 2})


def test_what_is_put_in_takes_its_stored_form(box: Any) -> None:
    """A state that was replayed is the same as one that comes from a snapshot."""
    zone = timezone(timedelta(hours=2))
    moment = datetime(2026, 1, 2, 3, 4, tzinfo=zone)

    class Text(str):
        pass

    def fill(self: Any) -> None:
        self.ratios.append(1)
        self.ratios += [2]
        self.ratios[0] = 3
        self.times.append(moment)
        self.counts[Text("z")] = 3
        self.names = [Text("t")]

    state = apply(box, fill)
    assert [type(one) for one in state.ratios] == [float, float]
    assert state.times[0].tzinfo is UTC and state.times[0] == moment
    assert {type(one) for one in state.counts} == {str} and type(state.names[0]) is str


def test_what_is_put_in_is_of_the_fields_type(box: Any) -> None:
    changes: dict[str, Callable[[Any], Any]] = {
        r"Box\.names\[2\]: expected str": lambda self: self.names.append(3),
        r"Box\.names\[3\]: expected str": lambda self: self.names.extend(["c", 3]),
        r"Box\.names\[1\]: expected str": lambda self: set_item(self.names, 1, None),
        r"Box\.names\[0\]: expected str, got 3": lambda self: setattr(self, "names", [3]),
        r"Box\.counts\['z'\]: expected int": lambda self: self.counts.update(z="3"),
        r"Box\.counts\['y'\]: expected int": lambda self: set_item(self.counts, "y", []),
        r"Box\.counts\['w'\]: expected int": lambda self: self.counts.setdefault("w", []),
        r"Box\.counts\[3\]: expected str": lambda self: set_item(self.counts, 3, 3),
        r"Box\.lines\[1\]: expected Line": lambda self: set_item(self.lines, 1, {"name": "n"}),
    }
    for text, change in changes.items():
        with pytest.raises(TypeError, match=text):
            apply(box, change)
    assert box.state.names == ["b", "a"] and box.version == 1


def test_they_are_lists_and_dicts_to_whoever_reads(box: Any) -> None:
    def read(self: Any) -> Any:
        names, counts = self.names, self.counts
        assert isinstance(names, list) and isinstance(counts, dict)
        assert names == ["b", "a"] and ["b", "a"] == names and names != ["a"]
        assert counts == {"y": 2, "x": 1} and {"y": 2, "x": 1} == counts and counts != {}
        assert repr(names) == "['b', 'a']" and repr(counts) == "{'x': 1, 'y': 2}"
        assert json.dumps([names, counts]) == '[["b", "a"], {"x": 1, "y": 2}]'
        assert {**counts, "z": 3} == {"x": 1, "y": 2, "z": 3} and [*names, "c"] == ["b", "a", "c"]
        assert dict(**counts) == counts and sorted(names) == ["a", "b"] and "a" in names
        match names, counts:
            case [first, *_], {"x": one, **rest}:
                assert (first, one, rest) == ("b", 1, {"y": 2})
            case _:
                raise AssertionError
        match names, counts:
            case list(these), dict(those):
                assert these is names and those is counts
            case _:
                raise AssertionError
        with pytest.raises(TypeError):
            hash(names)
        plain = [
            names + ["c"],  # noqa: RUF005
            names[:],
            names.copy(),
            names * 2,
            list(names),
            copy.copy(names),
            copy.deepcopy(names),
            type(names)(names),
            counts | {"z": 1},
            counts.copy(),
            dict(counts),
            copy.copy(counts),
            copy.deepcopy(counts),
            type(counts)(counts),
        ]
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            again = pickle.loads(pickle.dumps([names, counts], protocol))
            assert again == [names, counts]
            plain += again
        assert {type(one) for one in plain} == {list, dict}
        return None

    decide(box, read)
    read(box.state)


def test_a_nested_message_of_a_state_is_as_unchangeable_as_any(box: Any) -> None:
    state = apply(box, lambda self: self.lines.setdefault(1, Line("one", [1])))

    def change(self: Any) -> None:
        self.lines[1].marks.append(2)  # what one reads of a message is a copy

    decide(box, change)
    assert box.state.lines == state.lines == {1: Line("one", [1])}


def test_an_applier_may_keep_what_it_assigns(box: Any) -> None:
    """Within the applier it is the same list; later it is no part of the state."""

    def assign(self: Any) -> None:
        mine = ["c"]
        self.names = mine
        mine.append("d")
        self.names.append("e")
        assert self.names is mine
        kept.append(mine)

    assert apply(box, assign).names == ["c", "d", "e"]
    for one in kept:
        one.append("f")
    assert box.state.names == ["c", "d", "e"]


def test_a_live_list_that_was_kept_is_unchangeable(system: es.System, box: Any) -> None:
    apply(box, lambda self: kept.append(self.names))
    for one in list(kept):
        with pytest.raises(AttributeError, match=r"Box\.names"):
            one.append("c")
    other = system[Box, "b"]
    functions["other"] = lambda self: kept[0].append("c")
    with pytest.raises(AttributeError, match=r"Box\.names"):  # not in another entity's applier
        other.ask(Do("other"))
    errors: list[Exception] = []

    def from_a_thread(self: Any) -> None:
        def change() -> None:
            try:
                self.names.append("c")
            except AttributeError as error:
                errors.append(error)

        thread = threading.Thread(target=change)
        thread.start()
        thread.join()

    apply(box, from_a_thread)
    assert len(errors) >= 1 and box.state.names == ["b", "a"]


def test_a_list_outlives_its_state() -> None:
    with es.open(":memory:", Box) as system:
        box = system[Box, "a"]
        box.ask(Emit(["a"], {}))
        apply(box, lambda self: kept.append(self.names))
        of_a_copy = box.state.names
    del box, system
    gc.collect()
    for one in (*kept, of_a_copy):
        assert one == ["a"]
        with pytest.raises(AttributeError, match=r"Box\.names"):
            one.append("b")
    kept.clear()
    functions.clear()


def test_two_fields_never_share_a_list(box: Any) -> None:
    def share(self: Any) -> None:
        self.other_names = self.names
        self.names.append("c")

    state = apply(box, share)
    assert state.names == state.other_names == ["b", "a", "c"]
    state = apply(box, lambda self: self.names.append("d"))
    assert (state.names, state.other_names) == (["b", "a", "c", "d"], ["b", "a", "c"])

    def swap(self: Any) -> None:
        self.names, self.other_names = self.other_names, self.names

    state = apply(box, swap)
    assert (state.names, state.other_names) == (["b", "a", "c"], ["b", "a", "c", "d"])
    with pytest.raises(AttributeError, match=r"Box\.other_names"):
        state.other_names.append("x")


def test_a_list_taken_from_a_copy_is_no_part_of_it(box: Any) -> None:
    earlier = box.state

    def take(self: Any) -> None:
        self.other_names = earlier.names
        self.other_names = [*self.other_names]
        self.other_names.append("c")

    functions["take"] = take
    box.ask(Do("take"))
    assert earlier.names == ["b", "a"] and box.state.other_names == ["b", "a", "c"]


def test_a_deleted_and_an_augmented_field(box: Any) -> None:
    def augment(self: Any) -> None:
        self.names += ["c"]
        self.counts |= {"z": 3}
        self.names *= 2

    state = apply(box, augment)
    assert state.names == ["b", "a", "c"] * 2 and state.counts == {"x": 1, "y": 2, "z": 3}
    with pytest.raises(AttributeError):
        decide(box, augment)


def test_a_reply_is_a_copy(box: Any) -> None:
    counts = box.ask(Ask())
    assert type(counts) is dict
    counts["z"] = 3
    assert box.ask(Nested()) == [{"names": ["b", "a"]}, ({"x": 1, "y": 2},)]
    first, (second,) = box.ask(Nested())
    first["names"].append("c")
    second["q"] = 1
    assert box.state.counts == {"x": 1, "y": 2} and box.state.names == ["b", "a"]
    assert box.ask(Ask(), key="k") == box.ask(Ask(), key="k") == {"x": 1, "y": 2}


def test_a_reply_of_any_shape_is_a_copy(box: Any) -> None:
    def cyclic(self: Any) -> Any:
        made: list[Any] = [self.names, {"counts": self.counts}, (self.names,)]
        made[1]["whole"] = made
        made += [made] * 10 + [(made,), made[1]]
        return made

    made = decide(box, cyclic)
    assert type(made[0]) is list and type(made[1]["counts"]) is dict and type(made[2][0]) is list
    assert made[1]["whole"] is made and made[12] is made and made[14] is made[1]
    assert made[13][0] is made

    def deep(self: Any) -> Any:
        made = self.names
        for _ in range(100):
            made = (made,)
        return made

    made = decide(box, deep)
    while isinstance(made, tuple):
        (made,) = made
    assert type(made) is list

    def too_deep(self: Any) -> Any:
        made: list[Any] = [self.names]
        for _ in range(100_000):
            made = [made]
        return made

    with pytest.raises(RecursionError):
        decide(box, too_deep)


def test_a_reply_that_holds_nothing_of_the_state_is_what_the_handler_returned(box: Any) -> None:
    made: list[Any] = []
    made.extend([made] * 10)
    assert decide(box, lambda self: made) is made


def test_the_state_itself_as_a_reply_is_a_copy(system: es.System, box: Any) -> None:
    state = decide(box, lambda self: self)
    assert type(state) is Box and state == box.state and state.version == 1
    box.ask(Emit(["c"], {}))
    assert state.names == ["b", "a"] and state.version == 1 and state.system is system


def test_an_event_takes_what_the_state_has(box: Any) -> None:
    def emit(self: Any) -> None:
        event = self.emit(Given(self.names, self.counts))
        assert event.names == self.names and type(event.names) is list

    decide(box, emit)
    assert box.state.names == ["b", "a"] and box.version == 2


def test_a_snapshot_gives_unchangeable_ones_too(tmp_path: Any) -> None:
    class Add(es.Command):
        name: str
        behind: bool = False

    class Added(es.Event):
        name: str

    class Names(es.Aggregate, snapshot_every=2):
        names: list[str]
        counts: dict[str, int]

        @es.handles
        def add(self, cmd: Add) -> None:
            if cmd.behind:
                self.names.append(cmd.name)
            self.emit(Added(cmd.name))

        @es.applies
        def added(self, event: Added) -> None:
            self.names.append(event.name)
            self.counts[event.name] = self.counts.get(event.name, 0) + 1

    path = tmp_path / "a.db"
    with es.open(path, Names) as system:
        for name in "abcde":
            system[Names, "a"].ask(Add(name))
    with es.open(path, Names) as system:
        names = system[Names, "a"]
        with pytest.raises(AttributeError, match=r"Names\.names"):
            names.ask(Add("f", behind=True))
        with pytest.raises(AttributeError, match=r"Names\.counts"):
            names.state_at(4).counts.clear()
        names.ask(Add("f"))
        assert names.state.names == list("abcdef") and names.state.counts["f"] == 1
