"""How a process goes on that has stopped, or one of its instances that has failed: with the same
again, or with what comes after it.

Other threads ask; what they ask for is done on the runner's own, as one of its inputs.
"""

from __future__ import annotations

import concurrent.futures
import contextlib

from ._process_batch import Batch, Stop
from ._process_record import (
    CommandRejected,
    EventSkipped,
    EventUnparked,
    ProcessResumed,
    TimerFired,
)
from ._process_runner import Runner
from .errors import Corrupt, Deleted


def resume(runner: Runner, done: concurrent.futures.Future[None], skips: bool, reason: str) -> None:
    """Go on, where it has stopped: with the same again, or with what comes after it."""

    def run(batch: Batch) -> None:
        stop = runner.stop
        if batch.resumes or (not _mend_ledger(runner, stop, skips, reason) and stop is None):
            text = f"process {runner.definition.name} has not stopped"
            batch.after.append(lambda: _refuse(done, text))
            return
        if stop is not None and skips:
            _leave_out(runner, stop, reason, batch)
        batch.resumes = True
        batch.after.append(go_on)

    def go_on() -> None:
        if runner.stopped is not None and not skips:
            runner.again.appendleft(runner.stopped)
        runner.stopped = None
        with runner.lock:
            stop, runner.stop = runner.stop, None
        if stop is not None and stop.cuts:
            runner.follow()
        _fulfil(done)

    runner.put(run)


def _mend_ledger(runner: Runner, stop: Stop | None, skips: bool, reason: str) -> bool:
    """Where an upcaster raises every read model stops, the ledger as well. Whether it had."""
    status = runner.ledger.status
    if status.state != "stopped":
        return False
    with contextlib.suppress(ValueError):  # another runner was first
        if skips and (stop is None or stop.position == status.failed_position):
            runner.ledger.skip(reason=reason)
        else:
            runner.ledger.retry()
    return True


def _leave_out(runner: Runner, stop: Stop, reason: str, batch: Batch) -> None:
    stream = stop.stream
    try:
        gone = stream is None or runner.store.deleted(stream)
        instance = runner.instance(runner.definition.checkpoint if gone else str(stream))
    except (Corrupt, Deleted):  # it is the instance that cannot be read
        instance = runner.instance(runner.definition.checkpoint)
    batch.add(instance, EventSkipped(stop.position, stop.timer, stop.text(), reason))
    if stop.timer:
        batch.add(instance, TimerFired(stop.timer))
    elif stop.request:
        batch.add(instance, CommandRejected(stop.request, stop.text()))
        place = (str(stream), stop.request)
        batch.after.append(lambda: runner.outbox.strike(place))
    elif (stop.position, stop.part) in instance.parked:
        batch.add(instance, EventUnparked(stop.position, stop.part))
    elif runner.feed is not None:  # else it has not begun, and was at none of its events
        batch.checkpoint = stop.position


def resume_instance(
    runner: Runner, id: str, done: concurrent.futures.Future[None], skips: bool, reason: str
) -> None:
    """Go on with an instance that has failed: send its commands again, or go on without."""

    def run(batch: Batch) -> None:
        instance = runner.instance(runner.definition.prefix + id)
        if instance.status != "failed":
            text = f"{runner.definition.name} {id!r} has not failed: it is {instance.status}"
            batch.after.append(lambda: _refuse(done, text))
            return
        stream, failures = instance.stream, dict(instance.failures)
        if skips:
            for request, error in failures.items():
                batch.add(instance, CommandRejected(request, error))
        else:
            batch.deliveries += [(stream, one, instance.pending[one]) for one in failures]
        batch.add(instance, ProcessResumed(not skips, reason))
        batch.timers += [(one.due, stream, name) for name, one in instance.timers.items()]
        parked = list(instance.parked)
        batch.after.append(lambda: go_on(stream, parked))

    def go_on(stream: str, parked: list[tuple[int, int]]) -> None:
        runner.put_parked(stream, parked)
        _fulfil(done)

    runner.put(run)


def _fulfil(done: concurrent.futures.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


def _refuse(done: concurrent.futures.Future[None], text: str) -> None:
    if not done.done():
        done.set_exception(ValueError(text))
