"""Work shared out among threads, which stop within a turn when the user interrupts."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable

#: Seconds between two looks at whether the user has interrupted.
PATIENCE = 0.1


class StopFlag:
    """A number in memory that native code looks at: it ends once the number is not zero."""

    def __init__(self) -> None:
        self._number = ctypes.c_int32(0)

    @property
    def address(self) -> int:
        """Where the number is."""
        return ctypes.addressof(self._number)

    def set(self) -> None:
        """Ask for the end."""
        self._number.value = 1

    @property
    def is_set(self) -> bool:
        """True once the end was asked for."""
        return self._number.value != 0


def share_out(
    count: int, chunk: int, n_threads: int, work: Callable[[int, int, int], None], stop: StopFlag
) -> None:
    """`work(thread, begin, end)` for stretches of `range(count)`, each thread with the next one when it is free.

    Threads are made anew, so that nothing is left over in a process that was forked; and the calling thread only
    waits, so that it can be interrupted.

    Args:
        count: how many there are.
        chunk: how many a thread takes at a time.
        n_threads: how many threads work.
        work: must not hold the interpreter's lock for long, and must return soon once `stop` is set.
        stop: is set when the user interrupts, or a thread fails.
    """
    lock, begin, errors = threading.Lock(), 0, list[BaseException]()

    def run(thread: int) -> None:
        nonlocal begin
        try:
            while not stop.is_set:
                with lock:
                    first, begin = begin, min(count, begin + chunk)
                    last = begin
                if first >= count:
                    return
                work(thread, first, last)
        except BaseException as error:
            stop.set()
            errors.append(error)

    n_threads = max(1, min(n_threads, -(-count // chunk)))
    threads = [threading.Thread(target=run, args=(t,), daemon=True) for t in range(n_threads)]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            while thread.is_alive():
                thread.join(PATIENCE)
    except BaseException:
        stop.set()
        for thread in threads:
            thread.join()
        raise
    if errors:
        raise errors[0]
