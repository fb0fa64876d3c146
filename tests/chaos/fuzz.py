"""make fuzz: mutated films against the reader. python -m tests.chaos.fuzz --inputs 50000 --seed 0

Real headers of every container that is read, damaged in the ways of the field: bits flipped,
numbers in headers replaced by extreme ones, ends cut off, pieces removed, doubled or taken from
another file. Each input goes through the same reader, in the same kind of process, as in a job. It
must be a film or an error with a reason, within 5 seconds and the memory limit.
"""

import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import fire

from lib.images.files import MAX_PIXELS
from lib.images.measure import measure
from lib.images.reader import Reader
from lib.run import console
from lib.run.errors import UnreadableFilmError
from lib.workers.processes import MEMORY, map_isolated
from tests.formats import write_every_format

SECONDS = 5.0
_EXTREMES = [
    b"\0" * 4,
    b"\xff" * 4,
    b"\x7f\xff\xff\xff",
    b"\x80\0\0\0",
    b"\0\0\0\1",
    b"\1\0\0\0",
    b"\xff\xff\0\0",
]


@dataclass(frozen=True)
class Outcome:
    """What came of one input."""

    seed: int
    kind: str  # the container, before it was damaged
    result: str  # "film", "refused", or what should not have happened
    seconds: float = 0.0
    memory: int = 0  # bytes, the highest of its process so far


@cache
def _corpus(folder: Path) -> list[tuple[str, bytes]]:
    return [(path.name, path.read_bytes()) for path in sorted(folder.iterdir())]


def mutated(content: bytes, others: Sequence[bytes], dice: random.Random) -> bytes:
    """`content` with one to six damages; the beginning, where headers are, is hit most."""
    data = bytearray(content)
    for _ in range(dice.choice([1, 1, 1, 2, 3, 6])):
        reach = min(len(data), dice.choice([64, 512, 4096, len(data)])) or 1
        at = dice.randrange(reach)
        what = dice.randrange(7)
        if what == 0 and data:
            data[at % len(data)] ^= 1 << dice.randrange(8)
        elif what == 1:
            data[at : at + 4] = dice.choice(_EXTREMES)
        elif what == 2:
            data[at : at + 2] = dice.randbytes(2)
        elif what == 3:
            del data[dice.randrange(len(data) + 1) :]
        elif what == 4:
            del data[at : at + dice.randint(1, 200)]
        elif what == 5:
            data[at:at] = data[at : at + dice.randint(1, 2000)]
        else:
            other = dice.choice(others)
            begin = dice.randrange(len(other))
            data[at : at + 100] = other[begin : begin + dice.randint(1, 1000)]
    return bytes(data)


def attempt(seed: int, folder: Path) -> Outcome:
    """Damage one file of the corpus in `folder`, read and measure it."""
    corpus, dice = _corpus(folder), random.Random(seed)
    kind, content = dice.choice(corpus)
    began = time.perf_counter()
    with tempfile.NamedTemporaryFile(suffix=Path(kind).suffix) as file:
        file.write(mutated(content, [data for _, data in corpus], dice))
        file.flush()
        film = Reader(224, MAX_PIXELS)(Path(file.name))
        try:
            measure(Path(file.name))
            is_measured = True
        except UnreadableFilmError:
            is_measured = False
    if not film.error and (film.grey.shape != (224, 224) or not is_measured):
        result = "read and not measured"
    else:
        result = "refused" if film.error else "film"
    if film.error and ("\n" in film.error or len(film.error) > 400):
        result = "an error that is no line"
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Outcome(seed, kind, result, time.perf_counter() - began, memory)


def _lost(seed: int, reason: str) -> Outcome:
    return Outcome(seed, "", reason)


def run(inputs: int = 50_000, seed: int = 0) -> None:
    """Try `inputs` files; exit 1 when one hung its process, took too long or too much memory, or
    ended in no clear way.
    """
    with tempfile.TemporaryDirectory() as folder:
        write_every_format(Path(folder))
        corpus = len(list(Path(folder).iterdir()))
        numbers = range(seed * 10**9, seed * 10**9 + inputs)
        outcomes = map_isolated(
            partial(attempt, folder=Path(folder)), _lost, numbers, 2, 4 * SECONDS
        )
        results: Counter[str] = Counter()
        slowest, most = Outcome(0, "", ""), 0
        bad = []
        for outcome in console.track(outcomes, "inputs", inputs):
            results[outcome.result] += 1
            slowest = max(slowest, outcome, key=lambda one: one.seconds)
            most = max(most, outcome.memory)
            is_contained = outcome.result.startswith(
                "reading it crashed"
            )  # in C code that is not ours; its process died alone
            if (
                not (is_contained or outcome.result in ("film", "refused"))
                or outcome.seconds > SECONDS
            ):
                bad.append(outcome)
    console.table(
        f"{inputs} inputs from {corpus} formats", ("result", "times"), results.most_common()
    )
    console.say(f"slowest: {slowest.seconds:.2f} s ({slowest.kind})")
    console.say(f"most memory of a process: {most / 2**20:.0f} MiB of {MEMORY / 2**20:.0f}")
    for outcome in bad[:20]:
        console.fail(f"{outcome}")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    fire.Fire(run)
