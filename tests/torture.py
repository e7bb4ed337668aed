"""python -m tests.torture [--kills 50] [--seed 0]: kills a tiny study again and again, and counts what it survives.

A study runs in a process group of its own. At a random moment the whole group gets SIGKILL, and the same command is
given again, until the study is done; then another one starts, until there were so many kills. Half of the moments are
random times, half random numbers of steps in the study's work: on a busy machine times alone would meet little but its
start. At each kill, runs that were finished must still be there, untouched; at the end of each study, everything must
be as in one left in peace.
"""

import argparse
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent
STUDY = ["study=roialign", "budget=smoke", "budget.seeds=1", "budget.train_images=16", "budget.val_images=6"]
STUDY += ["budget.train.steps=10", "budget.backbone.steps=10", "checkpoint.steps=1"]

# Changes of what a study says it is at, until it is killed: an undisturbed one has some forty.
MOST_CHANGES = 20

# What a repeated run must have to the byte; run.json is compared without times and machine.
SAME_BYTES = ("config.yaml", "metrics.jsonl", "detections.json", "model.safetensors")


def start(arguments: list[str], outputs: Path) -> subprocess.Popen:
    """The study, as the leader of a process group of its own."""
    outputs.mkdir(parents=True, exist_ok=True)
    with (outputs / "said.txt").open("a") as said:
        command = [sys.executable, "run.py", *arguments, f"outputs={outputs}"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            command, cwd=ROOT, stdout=said, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )


def kill_when(process: subprocess.Popen, ripe: Callable[[], bool]) -> bool:
    """SIGKILL for the whole group once ripe() is true; False if the study ended before that."""
    while not ripe():
        if process.poll() is not None:
            return False
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return True


def at_a_time(rng: random.Random, duration: float) -> Callable[[], bool]:
    """Ripe at a random moment of as much time as an undisturbed study takes."""
    deadline = time.monotonic() + rng.uniform(0.1, duration)
    return lambda: time.monotonic() >= deadline


def amid_its_work(rng: random.Random, outputs: Path) -> Callable[[], bool]:
    """Ripe at a random moment of the second after a random number of changes of what the study is at."""
    left, wait, last = rng.randint(1, MOST_CHANGES), rng.random(), doing(outputs)
    deadline = math.inf

    def ripe() -> bool:
        nonlocal left, last, deadline
        now = doing(outputs)
        if now != last:
            left, last = left - 1, now
            if left == 0:
                deadline = time.monotonic() + wait
        return time.monotonic() >= deadline

    return ripe


def records(outputs: Path) -> dict[Path, tuple[bytes, int]]:
    """The finished runs: what their records say and when they were written."""
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in outputs.glob("*/*/seed*/run.json")}


def timeless(path: Path) -> dict:
    """A record without what is allowed to differ when a run is repeated."""
    record = json.loads(path.read_text())
    del record["cost"], record["provenance"]
    return record


def differences(outputs: Path, expected: Path) -> list[str]:
    """What is not in `outputs` as in `expected`, in words; leftovers of what was killed included."""
    there = [{path.relative_to(folder) for path in records(folder)} for folder in (outputs, expected)]
    found = [f"{path}: only in one of them" for path in there[0] ^ there[1]]
    for path in sorted(there[0] & there[1]):
        if timeless(outputs / path) != timeless(expected / path):
            found.append(f"{path}: another record")
        for name in SAME_BYTES:
            if (outputs / path.parent / name).read_bytes() != (expected / path.parent / name).read_bytes():
                found.append(f"{path.parent / name}: other bytes")
    for pattern in ("**/.*.tmp", "**/.partial-*", "**/checkpoint.safetensors"):
        found += [f"{path.relative_to(outputs)}: left over" for path in outputs.glob(pattern)]
    return found


def doing(outputs: Path) -> str:
    """What the study was at when it was killed: what the last status says that was written."""
    written = [path for pattern in ("stages/work/*", "*/*/seed*") for path in outputs.glob(f"{pattern}/status.json")]
    if not written:
        return "starting"
    last = max(written, key=lambda path: path.stat().st_mtime_ns)
    status = json.loads(last.read_text())
    if status["state"] == "done":
        return "between two tasks"
    kind = "a run" if last.parent.parent.name != "work" else f"the {last.parent.name.split('-')[0]} stage"
    return f"{kind}, {status['message']}"


def torture(kills: int, seed: int, folder: Path) -> int:
    """Prints counts; 0 if nothing was lost, done twice or other than it should be."""
    rng = random.Random(seed)
    expected = folder / "undisturbed"
    began = time.monotonic()
    if start(STUDY, expected).wait() != 0:
        print((expected / "said.txt").read_text())
        return 1
    duration = time.monotonic() - began
    print(f"an undisturbed study: {duration:.0f} s, {len(records(expected))} runs")

    count: Counter[str] = Counter()
    moments: Counter[str] = Counter()
    wrong: list[str] = []
    while count["kills"] < kills:
        count["studies"] += 1
        outputs = folder / f"killed{count['studies']}"
        while True:
            before, began = records(outputs), time.monotonic()
            ripe = at_a_time(rng, duration) if rng.random() < 0.5 else amid_its_work(rng, outputs)
            count["starts"] += 1
            process = start(STUDY, outputs)
            if count["kills"] < kills:
                killed = kill_when(process, ripe)
            else:
                killed, _ = False, process.wait()
            after = records(outputs)
            count["finished runs lost"] += sum(path not in after for path in before)
            count["finished runs done again"] += sum(path in after and after[path] != before[path] for path in before)
            if not killed:
                if not before:  # left in peace by chance: the machine is quicker now than it was at first
                    duration = min(duration, time.monotonic() - began)
                break
            count["kills"] += 1
            moments[doing(outputs)] += 1
        if process.returncode != 0:
            wrong.append(f"{outputs}: exit code {process.returncode}: {(outputs / 'said.txt').read_text()[-2000:]}")
        found = differences(outputs, expected)
        count["differences from the undisturbed study"] += len(found)
        wrong += [f"{outputs.name}: {text}" for text in found]
        done = [json.loads(content) for content, _ in records(outputs).values()]
        count["runs finished"] += len(done)
        count["of these, from a checkpoint"] += sum(bool(record["provenance"]["resumed"]) for record in done)
        print(f"{count['kills']} kills so far, {count['studies']} studies done", flush=True)
    for what in ("kills", "starts", "studies", "runs finished", "of these, from a checkpoint"):
        print(f"{count[what]:4d} {what}")
    for what in ("finished runs lost", "finished runs done again", "differences from the undisturbed study"):
        print(f"{count[what]:4d} {what}")
    print("killed during: " + ", ".join(f"{what} {number}" for what, number in moments.most_common()))
    print("\n".join(wrong))
    return 1 if wrong or count["finished runs lost"] or count["finished runs done again"] else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default 0)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        return torture(arguments.kills, arguments.seed, Path(folder))


if __name__ == "__main__":
    sys.exit(main())
