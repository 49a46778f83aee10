"""How long whoever failed to log in waits before the next try.

Nobody is ever locked out: waits are short, and a browser that has logged in before is known by a cookie of
its own, so that others' failures do not slow it (OWASP: Slow Down Online Guessing with Device Cookies).
"""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

LONGEST = 16.0
"""Seconds: a client that fails and fails again has so many tries a day as 86,400 / 16."""
CLIENTS = 10_000
"""That are remembered; of more, those that failed last."""
WINDOW, MANY = 60.0, 20
"""So many failures of all clients in so many seconds are an attack from many addresses."""
APART = 1.0
"""Seconds between two tries of all unknown clients together, during one."""


@dataclass
class _Failures:
    count: int
    last: float


class Slowdown:
    """What is known of clients that failed, for any number of threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: OrderedDict[str, _Failures] = OrderedDict()
        self._recent: deque[float] = deque(maxlen=MANY)
        self._last_unknown = -APART

    def wait(self, client: str, known: bool) -> float:
        """Seconds until `client` may try; 0 lets it, and counts as a try.

        known: whether it is a browser that has logged in before.
        """
        with self._lock:
            now = self._clock()
            failures = self._failures.get(client)
            wait = 0.0
            if failures is not None:
                wait = failures.last + min(LONGEST, 2.0 ** (failures.count - 1)) - now
            if not known and len(self._recent) == MANY and now - self._recent[0] < WINDOW:
                wait = max(wait, self._last_unknown + APART - now)
            if wait <= 0 and not known:
                self._last_unknown = now
            return max(0.0, wait)

    def failed(self, client: str) -> None:
        """A try with a wrong password."""
        with self._lock:
            failures = self._failures.pop(client, _Failures(0, 0.0))
            self._failures[client] = _Failures(min(failures.count + 1, 64), self._clock())
            self._recent.append(self._clock())
            while len(self._failures) > CLIENTS:
                self._failures.popitem(last=False)

    def succeeded(self, client: str) -> None:
        """A try with the right one."""
        with self._lock:
            self._failures.pop(client, None)
