"""Aggregates: names, definitions that are refused, limits of size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import escqrs as es
import pytest
from shelf import Placed, Put, Shelf


@pytest.fixture
def system() -> Iterator[es.System]:
    with es.open(":memory:", Shelf) as opened:
        yield opened


# ---- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "id", ["a", "é" * 512, "x" * 1024, "with/slash", "with space", "😀", "\n", "%", "'"]
)
def test_ids(system: es.System, id: str) -> None:
    shelf = system[Shelf, id]
    shelf.ask(Put("x"))
    assert (shelf.id, shelf.stream) == (id, f"Shelf/{id}")
    assert [one.stream for one in shelf.history()] == [f"Shelf/{id}"]
    assert shelf.state.id == id


@pytest.mark.parametrize("id", ["", "x" * 1025, "é" * 513, "a\0b", "\ud800"])
def test_ids_that_cannot_be(system: es.System, id: str) -> None:
    with pytest.raises((ValueError, es.TooLarge)):
        system[Shelf, id]


@pytest.mark.parametrize("id", [1, None, b"a", ("a",)])
def test_an_id_is_text(system: es.System, id: Any) -> None:
    with pytest.raises(TypeError):
        system[Shelf, id]


def test_names_are_the_classs_unless_given(tmp_path: Any) -> None:
    class Added(es.Event, name="shop.ItemAdded"):
        pass

    class Add(es.Command, name="shop.Add"):
        pass

    class Cart(es.Aggregate, name="shop.Cart"):
        @es.handles
        def add(self, cmd: Add) -> None:
            self.emit(Added())

        @es.applies
        def added(self, event: Added) -> None:
            pass

    path = tmp_path / "shop.db"
    with es.open(path, Cart) as system:
        system[Cart, "1"].ask(Add())
        assert system[Cart, "1"].stream == "shop.Cart/1"
        (one,) = system.events()
        assert (one.stream, one.type) == ("shop.Cart/1", "shop.ItemAdded")
    assert b"test_aggregate" not in path.read_bytes()


@pytest.mark.parametrize("name", ["", 3, "a\0b", "a/b"])
def test_names_that_cannot_be(name: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        type("Wrong", (es.Aggregate,), {}, name=name)
    if name != "a/b":
        with pytest.raises((TypeError, ValueError)):
            type("Wrong", (es.Event,), {}, name=name)


@pytest.mark.parametrize("name", ["emit", "id", "version", "system"])
@pytest.mark.parametrize("how", ["method", "field", "default"])
def test_names_that_are_the_engines(name: str, how: str) -> None:
    space: dict[str, Any] = {"__module__": __name__}
    if how == "method":
        space[name] = lambda self: None
    else:
        space["__annotations__"] = {name: "int"}
        if how == "default":
            space[name] = 3
    with pytest.raises(TypeError, match=name):
        type("Wrong", (es.Aggregate,), space)


@pytest.mark.parametrize("name", ["emit", "id", "version", "system", "__init__"])
def test_names_that_are_the_engines_in_a_base_that_is_no_aggregate(name: str) -> None:
    mixin = type("Mixin", (), {name: lambda self: None})
    with pytest.raises(TypeError, match=rf"Mixin.*{name}"):
        type("Wrong", (mixin, es.Aggregate), {"__module__": __name__})
    annotated = type("Mixin", (), {"__annotations__": {name: "int"}})
    with pytest.raises(TypeError, match=rf"Mixin.*{name}"):
        type("Wrong", (es.Aggregate, annotated), {"__module__": __name__})


def test_underscored_fields_are_reserved() -> None:
    with pytest.raises(TypeError, match="_hidden"):

        class Wrong(es.Aggregate):
            _hidden: int


def test_other_names_of_ours_may_be_fields() -> None:
    class Happened(es.Event):
        stream: str
        position: int
        type: str
        data: bytes
        event: str
        time: int

    class Odd(es.Aggregate):
        state: int
        history: list[int]
        ask: str
        name: str
        status: str
        flush: bool

    with es.open(":memory:", Odd) as system:
        assert system[Odd, "a"].state.state == 0
    assert Happened("s", 1, "t", b"", "e", 2).type == "t"


# ---- what is refused when a class is defined or opened -------------------------------------------


def refused(define: Any) -> TypeError:
    with pytest.raises(TypeError) as caught:
        cls = define()
        es.open(":memory:", cls).close()
    return caught.value


def test_async_and_generator_handlers_are_refused() -> None:
    def asynchronous() -> type:
        class Wrong(es.Aggregate):
            @es.handles
            async def put(self, cmd: Put) -> None:
                pass

        return Wrong

    def generator() -> type:
        class Wrong(es.Aggregate):
            @es.handles
            def put(self, cmd: Put) -> Any:
                yield 1

        return Wrong

    def asynchronous_generator() -> type:
        class Wrong(es.Aggregate):
            @es.applies
            async def put(self, event: Placed) -> Any:
                yield 1

        return Wrong

    for define in (asynchronous, generator, asynchronous_generator):
        assert "put" in str(refused(define))


def test_two_handlers_for_one_command_are_refused() -> None:
    def define() -> type:
        class Wrong(es.Aggregate):
            @es.handles
            def first(self, cmd: Put) -> int:
                return 1

            @es.handles
            def second(self, cmd: Put) -> int:
                return 2

        return Wrong

    text = str(refused(define))
    assert "first" in text and "second" in text and "Put" in text


def test_methods_need_an_annotation_of_the_right_kind() -> None:
    def none() -> type:
        class Wrong(es.Aggregate):
            @es.handles
            def method(self, cmd) -> None:  # type: ignore[no-untyped-def]
                pass

        return Wrong

    def event() -> type:
        class Wrong(es.Aggregate):
            @es.handles
            def method(self, cmd: Placed) -> None:
                pass

        return Wrong

    def command() -> type:
        class Wrong(es.Aggregate):
            @es.applies
            def method(self, event: Put) -> None:
                pass

        return Wrong

    def other() -> type:
        class Wrong(es.Aggregate):
            @es.handles
            def method(self, cmd: int) -> None:
                pass

        return Wrong

    def base() -> type:
        class Wrong(es.Aggregate):
            @es.handles
            def method(self, cmd: es.Command) -> None:
                pass

        return Wrong

    def parameters() -> type:
        class Wrong(es.Aggregate):
            @es.handles
            def method(self, cmd: Put, more: int) -> None:
                pass

        return Wrong

    for define in (none, event, command, other, base, parameters):
        assert "method" in str(refused(define))


def test_fields_that_cannot_be_are_refused() -> None:
    def float_key() -> type:
        class Wrong(es.Aggregate):
            field: dict[float, int]

        return Wrong

    def thing() -> type:
        class Wrong(es.Aggregate):
            field: object

        return Wrong

    def event() -> type:
        class WrongEvent(es.Event):
            field: dict[float, str]

        class Wrong(es.Aggregate):
            @es.applies
            def method(self, event: WrongEvent) -> None:
                pass

        return Wrong

    for define in (float_key, thing, event):
        assert "field" in str(refused(define))


def test_an_init_is_refused() -> None:
    with pytest.raises(TypeError, match="__init__"):

        class Wrong(es.Aggregate):
            def __init__(self) -> None:
                pass


@pytest.mark.parametrize("every", [-1, True, "3", 1.5])
def test_snapshot_every_is_a_number(every: Any) -> None:
    with pytest.raises(TypeError):
        type("Wrong", (es.Aggregate,), {}, snapshot_every=every)


def test_names_may_be_defined_later() -> None:
    class Late(es.Aggregate):
        @es.handles
        def do(self, cmd: DefinedLater) -> None:
            self.emit(HappenedLater(cmd.number))

        @es.applies
        def done(self, event: HappenedLater) -> None:
            pass

    with pytest.raises(TypeError, match="DefinedLater"):
        es.open(":memory:", Late)

    class DefinedLater(es.Command):
        number: int

    class HappenedLater(es.Event):
        number: int

    with es.open(":memory:", Late) as system:
        system[Late, "a"].ask(DefinedLater(3))
        assert system.head == 1


# ---- sizes ---------------------------------------------------------------------------------------


class Write(es.Command):
    size: int
    count: int = 1


class Written(es.Event):
    data: bytes


class Book(es.Aggregate):
    size: int

    @es.handles
    def write(self, cmd: Write) -> None:
        event = Written(bytes(cmd.size))
        for _ in range(cmd.count):
            self.emit(event)

    @es.applies
    def written(self, event: Written) -> None:
        self.size += len(event.data)


def test_a_message_is_bounded() -> None:
    with es.open(":memory:", Book) as system:
        book = system[Book, "a"]
        book.ask(Write(16 * 1024 * 1024 - 16))
        with pytest.raises(es.TooLarge, match="max_message_bytes"):
            book.ask(Write(16 * 1024 * 1024))
        assert book.version == 1
        book.ask(Write(1))
    with es.open(":memory:", Book, max_message_bytes=100) as system:
        system[Book, "a"].ask(Write(90))
        with pytest.raises(es.TooLarge):
            system[Book, "a"].ask(Write(100))
        assert system[Book, "a"].state.size == 90


def test_a_command_is_bounded() -> None:
    with es.open(":memory:", Book) as system:
        book = system[Book, "a"]
        with pytest.raises(es.TooLarge, match=r"100.?000"):
            book.ask(Write(1, 100_001))
        assert book.version == 0 and book.state.size == 0
        book.ask(Write(1, 100_000))
        assert book.version == 100_000 and book.state.size == 100_000
        assert system.head == 100_000
