"""How threads wait on a CPU, and how many PyTorch computes with, where nets are so small that threads mostly wait for
each other.

On a busy machine two threads may take ten times as long as one: OpenMP's threads spin while they wait, and so take the
time of the thread that they wait for, and of workers that load data. So every command lets them sleep, which does not
change a bit of its results. Another number of threads adds up in another order: training that is to resume bit for bit
keeps the number that it has. `demo` and `fit` measure, for some milliseconds, which number is fastest.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

_WORTH = 0.9
"""More threads are taken where they need at most this share of the time."""
_REPEATS = 5


def wait_asleep() -> None:
    """Lets OpenMP's threads sleep while they wait, unless the environment says otherwise.

    To be called before PyTorch is imported; afterwards it has no effect.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@contextmanager
def suitable_threads() -> Iterator[str]:
    """Lets PyTorch compute with as many threads as a small step is fastest with now, at most those that it has.

    Yields what was measured, in words; afterwards there are as many threads as before.
    """
    import torch

    before = torch.get_num_threads()
    try:
        seconds = {count: _seconds(count) for count in counts(before)}
        chosen = fastest(seconds)
        torch.set_num_threads(chosen)
        listed = ", ".join(f"{1e3 * value:.1f} ms with {count}" for count, value in seconds.items())
        yield f"{chosen} of {before} threads: a small step takes {listed}"
    finally:
        torch.set_num_threads(before)


def counts(most: int) -> list[int]:
    """The numbers of threads that are tried.

    >>> counts(1), counts(6)
    ([1], [1, 2, 4, 6])
    """
    return sorted({most, *(1 << power for power in range(most.bit_length()))})


def fastest(seconds: Mapping[int, float]) -> int:
    """The number of threads to take; fewer ones where more are not clearly faster.

    >>> fastest({1: 1.0, 2: 0.95}), fastest({1: 1.0, 2: 0.6, 4: 0.58}), fastest({1: 1.9, 2: 26.0})
    (1, 2, 1)
    """
    chosen, *others = sorted(seconds)
    for count in others:
        if seconds[count] <= _WORTH * seconds[chosen]:
            chosen = count
    return chosen


def _seconds(threads: int) -> float:
    """Median seconds of a small step, after a warm-up."""
    import torch

    torch.set_num_threads(threads)
    step, durations = small_step(), []
    for _ in range(_REPEATS + 1):
        started = time.perf_counter()
        step()
        durations.append(time.perf_counter() - started)
    return statistics.median(durations[1:])


def small_step() -> Callable[[], None]:
    """A step that is measured: two small convolutions, forward and backward."""
    import torch
    import torch.nn.functional as F

    image, kernel = torch.ones(4, 32, 16, 48), torch.full((32, 32, 3, 3), 0.01, requires_grad=True)

    def step() -> None:
        F.conv2d(F.relu(F.conv2d(image, kernel, padding=1)), kernel, padding=1).mean().backward()

    return step
