"""Fork: the child is told, and may open stores of its own."""

from __future__ import annotations

from pathlib import Path

import support


def test_after_fork_the_child_is_told() -> None:
    out, _ = support.run(
        """
        import gc, tempfile, warnings
        warnings.simplefilter("ignore", DeprecationWarning) # of forking with threads
        path = tempfile.mkdtemp() + "/shop.db"
        system = es.open(path, Counter)
        handle = system[Counter, "a"]
        for _ in range(20):
            handle.tell(Add(1))
        reply = handle.submit(Add(1))
        reply.result()
        pending = system[Counter, "b"].submit(Block())
        entered.wait()
        events = system.events()
        next(events)
        state = handle.state
        child = os.fork()
        if child == 0:
            try:
                uses = [
                    lambda: handle.ask(Add(1)), lambda: handle.submit(Add(1)),
                    lambda: handle.tell(Add(1)), lambda: handle.state, lambda: handle.state_at(1),
                        lambda: handle.version,
                    lambda: list(handle.history()), lambda: list(system.events()),
                    lambda: list(events),
                    lambda: system.head, lambda: system.flush(), lambda: system[Counter, "c"],
                    lambda: pending.result(), lambda: pending.exception(),
                ]
                for i, use in enumerate(uses):
                    try:
                        use()
                    except es.Forked as error:
                        assert "fork" in str(error)
                    else:
                        os._exit(10 + i)
                assert reply.result() == 21 and state.total == 21
                repr(system), repr(handle), repr(pending), repr(reply)
                system.close()
                try:
                    es.open(path, Counter)
                except es.Locked:
                    pass
                else:
                    os._exit(5)
                with es.open(":memory:", Counter) as mine:
                    assert mine[Counter, "a"].ask(Add(3)) == 3
                    mine[Counter, "a"].submit(Add(1)).result()
                with es.open(path, Counter, readonly=True) as mine:
                    assert mine[Counter, "a"].version == 21
                del system, handle, reply, pending, events, uses, use, state
                gc.collect()
            except BaseException:
                import traceback
                traceback.print_exc()
                os._exit(4)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status))
        release.set()
        assert handle.ask(Add(1)) == 22
        pending.result()
        system.close()
        with es.open(path, Counter) as system:
            print(system.head)
        """
    )
    assert out == "0\n22\n"


def test_a_child_ends_as_any_process() -> None:
    out, error = support.run(
        """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        system = es.open(":memory:", Counter)
        system[Counter, "a"].submit(Add(1)).result()
        child = os.fork()
        if child == 0:
            sys.exit(7) # with atexit functions and destructors
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status))
        assert system[Counter, "a"].ask(Add(1)) == 2
        system.close()
        """
    )
    assert out == "7\n", error


def test_the_childs_copy_of_the_lock_does_not_outlive_the_parents_close(tmp_path: Path) -> None:
    out, _ = support.run(
        """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        system = es.open(sys.argv[1], Counter)
        system[Counter, "a"].submit(Add(1)).result()
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(write)
            os.read(read, 1)
            os._exit(0)
        system.close()
        with es.open(sys.argv[1], Counter) as system: # while the child lives
            print(system[Counter, "a"].ask(Add(1)))
        os.close(write)
        os.waitpid(child, 0)
        """,
        tmp_path / "shop.db",
    )
    assert out == "2\n"


def test_multiprocessing_with_fork(tmp_path: Path) -> None:
    """The children open stores of their own while the parent's threads are inside SQLite."""
    out, _ = support.run(
        """
        import multiprocessing, sqlite3, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        def work(path):
            with es.open(path, Counter) as system:
                return system[Counter, "a"].ask(Add(1))
        def read(path):
            with es.open(path, Counter, readonly=True) as system:
                return system[Counter, "a"].version
        def other(path):
            connection = sqlite3.connect(path + "-other")
            connection.execute("CREATE TABLE IF NOT EXISTS t (x)")
            connection.close()
            return 0
        path = sys.argv[1]
        system = es.open(path, Counter)
        system[Counter, "a"].ask(Add(1))
        ended = threading.Event()
        def send():
            while not ended.is_set():
                for i in range(100):
                    system[Counter, str(i)].tell(Add(1))
                system[Counter, "0"].ask(Add(1))
        sender = threading.Thread(target=send)
        sender.start()
        for i in range(5):
            with multiprocessing.get_context("fork").Pool(2) as pool:
                assert pool.map(work, [f"{path}-{i}-{j}" for j in range(4)]) == [1, 1, 1, 1]
                assert pool.map(read, [path] * 4) == [1, 1, 1, 1]
                assert pool.map(other, [path] * 4) == [0, 0, 0, 0]
                pool.close()
                pool.join()
        ended.set()
        sender.join()
        system.close()
        print("good")
        """,
        tmp_path / "shop.db",
    )
    assert out == "good\n"
