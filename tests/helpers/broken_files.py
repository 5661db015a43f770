"""Ways to break the bytes of a file, and what may come of reading them."""

import numpy as np

REFUSALS = (ValueError, TypeError)


def cut(data, rng):
    return data[: rng.integers(len(data))]


def holed(data, rng):
    first, last = sorted(rng.integers(len(data) + 1, size=2))
    return data[:first] + data[last:]


def flipped(data, rng):
    changed = np.frombuffer(data, np.uint8).copy()
    changed[rng.integers(len(data), size=rng.integers(1, 9))] ^= np.uint8(1 << rng.integers(8))
    return changed.tobytes()


def overwritten(data, rng):
    first, last = sorted(rng.integers(len(data) + 1, size=2))
    noise = rng.bytes(last - first)
    return data[:first] + rng.choice([noise, bytes(len(noise)), b"\xff" * len(noise)]) + data[last:]


def repeated(data, rng):
    first, last = sorted(rng.integers(len(data) + 1, size=2))
    return data[:last] + data[first:]


def lengthened(data, rng):
    return data + rng.bytes(rng.integers(1, 100))


def noise(data, rng):
    return rng.bytes(len(data))


def empty(data, rng):
    return b""


DAMAGES = (cut, cut, holed, flipped, flipped, overwritten, repeated, lengthened, noise, empty)


def broken(data, count, seed=0):
    """Yield the data with each kind of damage in turn, at random places."""
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        yield DAMAGES[number % len(DAMAGES)](data, rng)


def outcome(read, *args):
    """Return "read" or "refused"; anything else ends the test."""
    try:
        read(*args)
    except REFUSALS:
        return "refused"
    return "read"
