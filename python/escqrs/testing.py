"""For tests: of actors, entities and read models in a repeatable order (:class:`System`,
:func:`explore`), and of a provider of one's own, whether it keeps what ``es.Store`` promises.

    from escqrs.testing import ProviderSuite

    class TestMine(ProviderSuite):
        def open(self, folder):
            return MyStore(folder / "data")

pytest runs every test of the suite on a store that ``open`` gives. The suite alone needs pytest.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._simulation import Client, System, explore

if TYPE_CHECKING:
    from ._provider_suite import ProviderSuite

__all__ = ["Client", "ProviderSuite", "System", "explore"]


def __getattr__(name: str) -> Any:
    if name == "ProviderSuite":
        return importlib.import_module("._provider_suite", __package__).ProviderSuite
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
