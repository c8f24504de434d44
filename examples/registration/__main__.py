"""User registration over HTTP: a REST server on actors.

    python -m examples.registration --folder data

The command side is actors (`actors`): one for each registration, persistent, its events in
`registrations.db`. The query side is a table that another actor fills (`users`). Ctrl-C ends it;
what was answered is there when it starts again.
"""

from __future__ import annotations

import argparse
import gc
from pathlib import Path

import uvicorn

from .server import Protocol
from .web import create


def main() -> None:
    parser = argparse.ArgumentParser(description="User registration over HTTP.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--folder", type=Path, default=Path("registration-data"))
    given = parser.parse_args()
    gc.freeze()  # the modules stay as long as the server; actors come and go by thousands
    gc.set_threshold(10_000, 50)
    uvicorn.run(
        create(given.folder),
        host=given.host,
        port=given.port,
        http=Protocol,
        ws="none",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # clients connect to it directly
    )


if __name__ == "__main__":
    main()
