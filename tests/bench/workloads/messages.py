"""One message of four fields (str, str, int, float), in nanoseconds a call: made, one field read,
to bytes, from bytes, and from bytes with one field read.

Beside msgspec (a frozen Struct as MessagePack, its most compact form), pydantic (a frozen model as
JSON), Google's protobuf (its C implementation) and a frozen dataclass with slots that orjson
writes. Each figure is the best of many short runs, so that what else the machine does counts
least, and holds the loop around it.
"""

from __future__ import annotations

import dataclasses
import timeit
from pathlib import Path
from typing import Any

from measure import Figures, NotAvailable

CALLS = 20_000
RUNS = 60

NAMES = ("item_id", "name", "quantity", "price")
VALUES = ("0192f7a4-0000-7000-8000-000000000000", "a book of ordinary length", 2, 12.5)
BY_NAME = "cls(item_id=a, name=b, quantity=c, price=d)"
BY_POSITION = "cls(a, b, c, d)"


def measured(
    part: float, cls: Any, make: str, encode: Any, decode: Any, unpack: str = "decode(data)"
) -> Figures:
    """Return the figures of one library; `make` and `unpack` are calls as it wants them."""
    names = dict(zip("abcd", VALUES, strict=True), cls=cls, encode=encode, decode=decode)
    message = cls(**dict(zip(NAMES, VALUES, strict=True)))
    names.update(message=message, data=encode(message))
    back = eval(unpack, names)
    assert all(getattr(back, name) == value for name, value in zip(NAMES, VALUES, strict=True))
    figures = {}
    for figure, statement in {
        "make": make,
        "read": "message.name",
        "pack": "encode(message)",
        "unpack": unpack,
        "unpack_read": f"{unpack}.name",
    }.items():
        runs = timeit.repeat(statement, globals=names, number=CALLS, repeat=int(5 + RUNS * part))
        figures[figure] = min(runs) / CALLS * 1e9
    return figures


def ours(folder: Path, part: float) -> Figures:
    import escqrs as es

    class ItemAdded(es.Event):
        item_id: str
        name: str
        quantity: int
        price: float

    return measured(part, ItemAdded, BY_POSITION, es.to_bytes, es.from_bytes, "decode(cls, data)")


def msgspec(part: float) -> Figures:
    import msgspec

    class ItemAdded(msgspec.Struct, frozen=True, array_like=True, gc=False):
        item_id: str
        name: str
        quantity: int
        price: float

    encode = msgspec.msgpack.Encoder().encode
    return measured(part, ItemAdded, BY_POSITION, encode, msgspec.msgpack.Decoder(ItemAdded).decode)


def pydantic(part: float) -> Figures:
    import pydantic

    class ItemAdded(pydantic.BaseModel, frozen=True):
        item_id: str
        name: str
        quantity: int
        price: float

    encode = ItemAdded.__pydantic_serializer__.to_json
    decode = ItemAdded.__pydantic_validator__.validate_json
    return measured(part, ItemAdded, BY_NAME, encode, decode)


def protobuf(part: float) -> Figures:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="bench.proto", package="bench", syntax="proto3")
    message = file.message_type.add(name="ItemAdded")
    field = descriptor_pb2.FieldDescriptorProto
    kinds = (field.TYPE_STRING, field.TYPE_STRING, field.TYPE_INT64, field.TYPE_DOUBLE)
    for number, (name, kind) in enumerate(zip(NAMES, kinds, strict=True), 1):
        message.field.add(name=name, number=number, label=field.LABEL_OPTIONAL, type=kind)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    cls: Any = message_factory.GetMessageClass(pool.FindMessageTypeByName("bench.ItemAdded"))
    return measured(part, cls, BY_NAME, cls.SerializeToString, cls.FromString)


def dataclass(part: float) -> Figures:
    import orjson

    @dataclasses.dataclass(frozen=True, slots=True)
    class ItemAdded:
        item_id: str
        name: str
        quantity: int
        price: float

    return measured(part, ItemAdded, BY_POSITION, orjson.dumps, orjson.loads, "cls(**decode(data))")


def floor(folder: Path, part: float) -> Figures:
    return {}  # there is none


def peer(folder: Path, part: float) -> Figures:
    """All of them: the figure `make` of msgspec is `msgspec.make`."""
    figures: Figures = {}
    for beside in (msgspec, pydantic, protobuf, dataclass):
        try:
            taken = beside(part)
        except ImportError:
            continue
        figures.update({f"{beside.__name__}.{name}": value for name, value in taken.items()})
    if not figures:
        raise NotAvailable("pip install msgspec pydantic protobuf orjson")
    return figures
