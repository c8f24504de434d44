from collections.abc import Callable
from typing import Any, TypeVar, final

from typing_extensions import dataclass_transform

from ._message import Message, field

M = TypeVar("M", bound=Message)

INT: int
FLOAT: int
BOOL: int
STRING: int
BYTES: int
TIME: int
ENUM: int
MESSAGE: int
ONE: int
OPTIONAL: int
LIST: int
MAP: int

@final
class Layout:
    @property
    def names(self) -> tuple[str, ...]: ...
    def initial(self) -> dict[str, Any]: ...
    def check(self, name: str, value: object, /) -> Any: ...

@final
class FieldDescriptor:
    __name__: str
    @property
    def __objclass__(self) -> type: ...
    @property
    def index(self) -> int: ...
    def __get__(self, instance: object, owner: type | None = None, /) -> Any: ...
    def __set__(self, instance: object, value: Any, /) -> None: ...
    def __delete__(self, instance: object, /) -> None: ...

@dataclass_transform(eq_default=True, frozen_default=True, field_specifiers=(field,))
class MessageMeta(type):
    @property
    def __escqrs_fields__(self) -> tuple[str, ...]: ...
    @property
    def __escqrs_name__(self) -> str: ...
    @property
    def __escqrs_kind__(self) -> str: ...
    @property
    def __escqrs_reply__(self) -> Any: ...
    @property
    def __escqrs_abstract__(self) -> bool: ...
