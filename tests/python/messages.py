"""Message classes of many kinds, for the tests of messages."""

from __future__ import annotations

import enum
from datetime import UTC, datetime
from typing import (  # noqa: UP035
    Any,
    Dict,
    List,
    Optional,
    Union,
)

import escqrs as es


class Color(enum.Enum):
    RED = 1
    GREEN = 2


class Size(enum.Enum):
    SMALL = "s"
    LARGE = "l"


class Level(enum.IntEnum):
    LOW = -5
    HIGH = 2**31 - 1


class ItemAdded(es.Event):
    item_id: str
    name: str
    quantity: int


class AddItem(es.Command[str]):
    name: str
    quantity: int = 1


class Money(es.Message):
    amount: int
    currency: str = "EUR"


class Everything(es.Event):
    text: str
    number: int
    ratio: float
    flag: bool
    data: bytes
    at: datetime
    color: Color
    size: Size
    level: Level
    money: Money
    maybe: int | None
    maybe_text: Optional[str]  # noqa: UP045
    maybe_at: datetime | None
    maybe_money: Union[Money, None]  # noqa: UP007
    numbers: list[int]
    texts: List[str]  # noqa: UP006
    times: list[datetime]
    colors: list[Color]
    moneys: list[Money]
    counts: dict[str, int]
    names: Dict[int, str]  # noqa: UP006
    moneys_by_name: dict[str, Money]
    sizes: dict[int, Size]


class Node(es.Message):
    value: int
    children: list[Node] = []
    next: Node | None = None


def everything(**changes: Any) -> Everything:
    values: dict[str, Any] = {
        "text": "grüße, 世界 🌍",
        "number": -(2**63),
        "ratio": 0.5,
        "flag": True,
        "data": b"\x00\xff",
        "at": datetime(2024, 2, 29, 12, 30, 15, 123456, UTC),
        "color": Color.GREEN,
        "size": Size.LARGE,
        "level": Level.LOW,
        "money": Money(5),
        "maybe": None,
        "maybe_text": "",
        "maybe_at": None,
        "maybe_money": Money(1, "USD"),
        "numbers": [0, -1, 2**63 - 1],
        "texts": ["", "a", "ä"],
        "times": [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999999, UTC)],
        "colors": [Color.RED, Color.GREEN],
        "moneys": [Money(1), Money(2, "CHF")],
        "counts": {"": 0, "ü": 2},
        "names": {0: "", -7: "x"},
        "moneys_by_name": {"a": Money(3)},
        "sizes": {1: Size.SMALL},
    }
    return Everything(**{**values, **changes})


def again(message: Any) -> Any:
    """As replay makes it: from its bytes."""
    return es.from_bytes(type(message), es.to_bytes(message))
