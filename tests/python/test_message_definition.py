"""Message classes: what can be declared, and under which names and numbers."""

from __future__ import annotations

import enum
import gc
import subprocess
import sys
import weakref
from typing import (  # noqa: UP035
    Annotated,
    Any,
    Generic,
    List,
    Literal,
    NewType,
    Optional,
    TypeVar,
)

import escqrs as es
import pytest
from escqrs import _core
from messages import AddItem, Everything, ItemAdded, Money, again
from support import SECONDS

# ---- definitions that are refused ----------------------------------------------------------------


class Flags(enum.Flag):
    A = 1
    B = 2


class Empty(enum.Enum):
    pass


T = TypeVar("T")


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (object, ["x", "object", "str, int, float"]),
        (Any, ["x", "Any"]),
        (complex, ["complex"]),
        (None, ["x"]),
        (set, ["set[T]"]),
        (list, ["list[T]"]),
        (dict, ["dict[K, T]"]),
        (List, ["list[T]"]),  # noqa: UP006
        (list[list[int]], ["es.Message", "wrap"]),
        (list[dict[str, int]], ["es.Message"]),
        (dict[str, list[int]], ["es.Message"]),
        (dict[str, dict[str, int]], ["es.Message"]),
        (list[int | None], ["es.Message"]),
        (dict[str, int | None], ["es.Message"]),
        (list[int] | None, ["es.Message"]),
        (Optional[dict[str, int]], ["es.Message"]),  # noqa: UP045  # noqa: UP045
        (dict[float, int], ["float", "a key is str, int"]),
        (Literal[1, "a"], ["Literal", "all str or all int"]),
        (Money | int, ["Money", "a union is"]),
        (list[Money | None], ["None", "es.Message"]),
        (int | str, ["int | str"]),
        (int | str | None, ["T | None"]),
        (Flags, ["Flags", "Flag"]),
        (Empty, ["Empty", "members"]),
        (es.Message, ["es.Message", "derived"]),
        (list[es.Event], ["es.Event"]),
        (T, ["T"]),
        ("int +", ["int +"]),
        ("1 / 0", ["division"]),
        ([1], ["x"]),
    ],
)
def test_refused_types(annotation: object, words: list[str]) -> None:
    with pytest.raises(TypeError) as caught:
        type(es.Event)("Refused", (es.Event,), {"__annotations__": {"x": annotation}})
    text = str(caught.value)
    assert "Refused.x" in text
    for word in words:
        assert word in text


def test_refused_definitions() -> None:
    def define(namespace: dict[str, Any], *bases: type, **keywords: Any) -> type:
        return type(es.Event)("Refused", bases or (es.Event,), namespace, **keywords)

    for namespace, match in [
        ({"__annotations__": {"_x": int}}, r"Refused\._x.*reserved"),
        ({"__annotations__": {"__x": int}}, "reserved"),
        ({"__annotations__": {"x": int}, "x": es.field(0)}, r"Refused\.x.*0 cannot"),
        ({"__annotations__": {"x": int}, "x": es.field(19_500)}, "19,000"),
        ({"__annotations__": {"x": int}, "x": es.field(2**29)}, "536,870,911"),
        ({"__annotations__": {"x": int}, "x": es.field(True)}, "number is an int"),
        (
            {"__annotations__": {"x": int, "y": int}, "y": es.field(1)},
            r"Refused\.y.*1 is taken.*'x'",
        ),
        ({"x": es.field(1)}, r"Refused\.x.*annotation"),
        ({"__init__": lambda self: None}, "__post_init__"),
        ({"__new__": lambda self: None}, "__post_init__"),
        ({"__slots__": ("x",)}, "__slots__"),
        ({"__del__": lambda self: None}, "__del__"),
        ({"__setattr__": lambda self, n, v: None}, "immutable"),
    ]:
        with pytest.raises(TypeError, match=match):
            define(namespace)
    for name in ("", 5, None, b"x", "a b", ".x", "x.", "a..b", "1a", "x" * 300, "a\0b"):
        with pytest.raises(TypeError):
            define({}, name=name)
    with pytest.raises(TypeError, match=r"Refused: name='a\\ud800' is not valid Unicode"):
        define({}, name="a\ud800")
    with pytest.raises(TypeError):
        define({}, surprise=1)
    with pytest.raises(TypeError, match="either an event or a command"):
        define({}, es.Event, es.Command)

    class HasSlots:
        __slots__ = ("x",)

    with pytest.raises(TypeError):
        define({"__annotations__": {"y": int}}, HasSlots, es.Event)
    with pytest.raises(TypeError, match="both ItemAdded and Everything"):
        define({}, ItemAdded, Everything)
    with pytest.raises(TypeError, match=r"Refused\.name.*inherited"):
        define({"name": 5}, ItemAdded)


# ---- names, numbers, inheritance -----------------------------------------------------------------


def test_stored_names() -> None:
    class Added(es.Event, name="shop.Added"):
        x: int

    class More(Added):
        pass

    assert Added.__escqrs_name__ == "shop.Added"
    assert More.__escqrs_name__ == "More"
    assert ItemAdded.__escqrs_name__ == "ItemAdded"
    assert Added.__name__ == "Added"
    assert repr(Added(1)) == "Added(x=1)"


def test_init_subclass_keywords() -> None:
    seen = []

    class Base(es.Event):
        def __init_subclass__(cls, *, tag: str = "", **keywords: Any) -> None:
            super().__init_subclass__(**keywords)
            seen.append((cls.__name__, tag))

    class Derived(Base, tag="t", name="d.Derived"):
        x: int

    assert seen == [("Derived", "t")]
    assert Derived.__escqrs_name__ == "d.Derived"


def test_numbers() -> None:
    class Numbered(es.Event):
        a: int
        b: int = es.field(5)
        c: int = es.field()
        d: int = es.field(2, default=0)

    assert es.to_bytes(Numbered(1, 2, 3, 4)) == b"\x08\x01\x10\x04\x28\x02\x30\x03"
    assert again(Numbered(1, 2, 3, 4)) == Numbered(1, 2, 3, 4)
    assert "int64 c = 6;" in es.proto(Numbered)


def test_inheritance() -> None:
    class Base(es.Event):
        a: int
        b: str = "b"

    class Derived(Base):
        c: float = 1.0

    class Changed(Derived):
        b: str = "changed"

    assert Derived.__escqrs_fields__ == Changed.__escqrs_fields__ == ("a", "b", "c")
    assert Derived(1, "x", 2.0) == again(Derived(1, "x", 2.0))
    assert Changed(1).b == "changed"
    assert isinstance(Changed(1), Base)
    assert Base(1) != Derived(1)
    assert Derived(1).a == 1
    assert Base.a.__get__(Derived(4)) == 4  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="is not one of"):
        Base.a.__get__(ItemAdded("1", "2", 3))  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="without a default"):

        class Bad(Base):
            d: int

    class Holder(es.Message):
        base: Base

    with pytest.raises(TypeError, match=r"Holder\.base: expected Base"):
        Holder(Derived(1))  # it would be read back as a Base


def test_kinds() -> None:
    assert AddItem.__escqrs_kind__ == "command"
    assert ItemAdded.__escqrs_kind__ == "event"
    assert Money.__escqrs_kind__ == "message"
    assert issubclass(es.Event, es.Message)
    assert issubclass(es.Command, es.Message)
    assert _core.layout_of(ItemAdded).names == ("item_id", "name", "quantity")


R = TypeVar("R")


def test_replies() -> None:
    class Bare(es.Command):  # type: ignore[type-arg]
        pass

    class Nothing(es.Command[None]):
        pass

    class Numbers(es.Command[list[int]]):
        pass

    class Base(es.Command[R], Generic[R]):
        x: int

    class Derived(Base[bytes]):
        pass

    class Further(Derived):
        pass

    assert AddItem.__escqrs_reply__ is str
    assert Bare.__escqrs_reply__ is None
    assert Nothing.__escqrs_reply__ is type(None)
    assert Numbers.__escqrs_reply__ == list[int]
    assert Base.__escqrs_reply__ is R
    assert Derived.__escqrs_reply__ is bytes
    assert Further.__escqrs_reply__ is bytes
    assert Base[int](5).x == 5


# ---- annotations ---------------------------------------------------------------------------------


UserId = NewType("UserId", str)


class Tagged(es.Event):
    user: UserId
    count: Annotated[int, "how many"]
    later: list[DefinedLater]
    by_name: dict[str, DefinedLater] = {}


class DefinedLater(es.Message):
    x: int
    back: Tagged | None = None


def test_forward_references() -> None:
    tagged = Tagged(UserId("u"), 1, [DefinedLater(2)])
    assert again(tagged) == tagged
    assert again(DefinedLater(1, tagged)).back == tagged


def test_classes_in_functions() -> None:
    class Inner(es.Message):
        x: int
        shade: Shade | None = None

    class Outer(es.Event):
        inner: Inner
        more: list[Outer] = []
        other: Other | None = None

    class Shade(enum.Enum):
        DARK = 1

    class Other(es.Message):
        outer: Outer

    outer = Outer(Inner(1, Shade.DARK), [Outer(Inner(2))], Other(Outer(Inner(3))))
    assert again(outer) == outer


def make(kind: type) -> tuple[type[es.Event], type[es.Message]]:
    class Outer(es.Event):
        inner: DefinedLater

    class DefinedLater(es.Message):  # not the module's
        value: kind  # type: ignore[valid-type]

    return Outer, DefinedLater


def test_a_class_that_a_function_makes_again_behind_the_one_that_names_it() -> None:
    for kind, value in ((int, 1), (str, "a"), (bytes, b"a")):
        outer, inner = make(kind)
        message = outer(inner(value))
        assert es.from_bytes(outer, es.to_bytes(message)) == message


def test_nested_classes() -> None:
    class Order(es.Event):
        class Line(es.Message):
            price: int

        lines: list[Line]

    assert again(Order([Order.Line(5)])) == Order([Order.Line(5)])


def test_unresolved_names() -> None:
    class Broken(es.Event):
        x: Missing  # type: ignore[name-defined]  # noqa: F821

    class Around(es.Event):
        broken: Broken

    for make in (lambda: Broken(1), lambda: es.from_bytes(Broken, b""), lambda: es.proto(Around)):
        with pytest.raises(TypeError, match=r"Broken\.x.*'Missing' is not defined"):
            make()


def test_without_the_future_import() -> None:
    code = """
import escqrs as es
from typing import Optional

class Node(es.Message):
    value: int
    left: Optional["Node"] = None
    many: list["Leaf"] = []

class Leaf(es.Message):
    name: str

node = Node(1, Node(2), [Leaf("x")])
assert es.from_bytes(Node, es.to_bytes(node)) == node

def function():
    class A(es.Event):
        b: "B"
    class B(es.Message):
        x: int
    return A(B(1))

assert function().b.x == 1
import pickle
assert pickle.loads(pickle.dumps(node)) == node
first = Node
class Node(es.Message):
    value: int
    left: Optional["Node"] = None
    many: list["Leaf"] = []
assert Node is not first
assert pickle.loads(pickle.dumps(node)) == node  # as an instance of the newest definition
print("fine")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.stdout == "fine\n", done.stderr


def test_exec_without_a_module() -> None:
    namespace: dict[str, Any] = {"es": es, "__name__": "nowhere"}
    exec(
        "from __future__ import annotations\n"
        "class A(es.Event):\n    b: B\n"
        "class B(es.Message):\n    x: int\n",
        namespace,
    )
    assert namespace["A"](namespace["B"](1)).b.x == 1


# ---- redefinition --------------------------------------------------------------------------------


def test_redefinition() -> None:
    def define() -> tuple[Any, Any, Any]:
        class Shade(enum.Enum):
            DARK = 1
            LIGHT = 2

        class Part(es.Message):
            x: int
            shade: Shade

        class Whole(es.Event):
            part: Part
            parts: list[Part] = []

        return Shade, Part, Whole

    generation = _core.generation()
    shade1, part1, whole1 = define()
    shade2, part2, whole2 = define()
    assert _core.generation() == generation + 4
    assert _core.newest(whole1) is _core.newest(whole2) is whole2
    assert part1(1, shade1.DARK) != part2(1, shade2.DARK)  # members of two enums differ
    assert part2(1, shade1.LIGHT) == part2(1, shade2.LIGHT)
    assert whole2(part1(1, shade1.DARK)) == whole2(part2(1, shade2.DARK))
    assert whole2(part2(1, shade2.DARK), [part1(1, shade1.DARK)]).parts == [part2(1, shade2.DARK)]

    def again_defined() -> Any:
        class Same(es.Event):
            x: int

        return Same

    first, second = again_defined(), again_defined()
    assert first(1) == second(1)
    assert hash(first(1)) == hash(second(1))
    assert first(1) != second(2)
    assert {first(1)} == {second(1)}


def test_the_registry_does_not_keep_classes() -> None:
    def define() -> weakref.ref[type]:
        class Temporary(es.Event):
            x: int
            me: Temporary | None = None
            other: list[Companion] = []

        class Companion(es.Message):
            back: Temporary | None = None

        assert Temporary(1, Temporary(2), [Companion()]).x == 1
        return weakref.ref(Temporary)

    alive = define()
    gc.collect()
    assert alive() is None
