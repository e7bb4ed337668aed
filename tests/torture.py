"""Kills a tiny study again and again, damages what it kept, and checks that nothing is lost.

python -m tests.torture [--kills 50] [--seed 0] [--flips 0.5]

A study runs in its own process group. At a random moment the whole group gets SIGKILL, and the same command is given
again, until the study is done; then another study starts, until there were enough kills. Half of the moments are random
times, and half come after a random number of changes of status, because on a busy machine random times would mostly hit
the start. After some kills, one bit of a stage, of synthetic images or of a checkpoint is flipped, as disks do. After
each kill, finished runs must still be there, unchanged; at the end of each study, everything must be the same as in a
study that was never killed.
"""

import argparse
import glob
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

from tests.damage import flip_bit

ROOT = Path(__file__).parent.parent
STUDY = ["study=roialign", "budget=smoke", "budget.seeds=1", "budget.train_images=16", "budget.val_images=6"]
STUDY += ["model.weights=scratch", "budget.backbone.steps=10", "budget.train.steps=10", "checkpoint.steps=1"]

# Changes of status until a study is killed: an undisturbed one has some forty.
MOST_CHANGES = 20

# Files of a repeated run that must have the same bytes; run.json is compared without times and machine.
SAME_BYTES = ("config.yaml", "metrics.jsonl", "detections.json", "true_boxes.json", "model.safetensors")


def start(arguments: list[str], outputs: Path) -> subprocess.Popen:
    """Starts the study in its own process group, of which it is the leader."""
    outputs.mkdir(parents=True, exist_ok=True)
    with (outputs / "output.txt").open("a") as output:
        command = [sys.executable, "run.py", *arguments, f"outputs={outputs}"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )


def kill_when(process: subprocess.Popen, ready: Callable[[], bool]) -> bool:
    """Sends SIGKILL to the whole group once ready() is true; False if the study ended before that."""
    while not ready():
        if process.poll() is not None:
            return False
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return True


def after_a_time(rng: random.Random, duration: float) -> Callable[[], bool]:
    """Ready at a random moment within the time that an undisturbed study takes."""
    deadline = time.monotonic() + rng.uniform(0.1, duration)
    return lambda: time.monotonic() >= deadline


def after_changes(rng: random.Random, outputs: Path) -> Callable[[], bool]:
    """Ready at a random moment of the second after a random number of changes of status."""
    remaining, wait, last = rng.randint(1, MOST_CHANGES), rng.random(), phase(outputs)
    deadline = math.inf

    def ready() -> bool:
        nonlocal remaining, last, deadline
        now = phase(outputs)
        if now != last:
            remaining, last = remaining - 1, now
            if remaining == 0:
                deadline = time.monotonic() + wait
        return time.monotonic() >= deadline

    return ready


def flip_a_bit(outputs: Path, rng: random.Random) -> bool:
    """Damages a random file that the next start may use; False if there is none yet."""
    patterns = ("stages/backbone-*/*.*", "stages/rpn-*/*.*", "stages/data/shapes-*/*.*", "**/checkpoint.safetensors")
    files = sorted({path for pattern in patterns for path in outputs.glob(pattern) if path.stat().st_size})
    if not files:
        return False
    path = rng.choice(files)
    flip_bit(path, rng.randrange(8 * path.stat().st_size))
    return True


def records(outputs: Path) -> dict[Path, tuple[bytes, int]]:
    """The records of finished runs, and the times when they were written."""
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in outputs.glob("*/*/seed*/run.json")}


def timeless(path: Path) -> dict:
    """A record without what may differ when a run is repeated."""
    record = json.loads(path.read_text())
    del record["cost"], record["provenance"], record["digest"]
    return record


def differences(outputs: Path, expected: Path) -> list[str]:
    """The differences of `outputs` from `expected`, in words, including files that killed processes left behind."""
    paths = [{path.relative_to(folder) for path in records(folder)} for folder in (outputs, expected)]
    problems = [f"{path}: only in one of them" for path in paths[0] ^ paths[1]]
    for path in sorted(paths[0] & paths[1]):
        if timeless(outputs / path) != timeless(expected / path):
            problems.append(f"{path}: different record")
        for name in SAME_BYTES:
            if (outputs / path.parent / name).read_bytes() != (expected / path.parent / name).read_bytes():
                problems.append(f"{path.parent / name}: different bytes")
    for pattern in ("**/.*.tmp", "**/.partial-*", "**/checkpoint.safetensors"):
        problems += [f"{path.relative_to(outputs)}: left over" for path in outputs.glob(pattern)]
    return problems


def phase(outputs: Path) -> str:
    """What the study was doing when it was killed, according to the status that was written last."""
    # Unlike Path.glob, glob.glob passes over folders that a running study renames meanwhile.
    patterns = (f"{glob.escape(str(outputs))}/{pattern}/status.json" for pattern in ("stages/work/*", "*/*/seed*"))
    written = [Path(path) for pattern in patterns for path in glob.glob(pattern)]
    if not written:
        return "starting"
    last = max(written, key=lambda path: path.stat().st_mtime_ns)
    status = json.loads(last.read_text())
    if status["state"] == "done":
        return "between two jobs"
    kind = "a run" if last.parent.parent.name != "work" else f"the {last.parent.name.split('-')[0]} stage"
    return f"{kind}, {status['message']}"


def torture(kills: int, seed: int, flips: float, folder: Path) -> int:
    """Prints counts; returns 0 if nothing was lost, repeated or different.

    flips: the share of kills after which a bit is flipped
    """
    rng, flipping = random.Random(seed), random.Random(f"{seed} flips")
    expected = folder / "undisturbed"
    began = time.monotonic()
    if start(STUDY, expected).wait() != 0:
        print((expected / "output.txt").read_text())
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
            ready = after_a_time(rng, duration) if rng.random() < 0.5 else after_changes(rng, outputs)
            count["starts"] += 1
            process = start(STUDY, outputs)
            if count["kills"] < kills:
                killed = kill_when(process, ready)
            else:
                killed, _ = False, process.wait()
            after = records(outputs)
            count["finished runs lost"] += sum(path not in after for path in before)
            count["finished runs repeated"] += sum(path in after and after[path] != before[path] for path in before)
            if not killed:
                if not before:  # never killed, by chance: the machine is faster now than at first
                    duration = min(duration, time.monotonic() - began)
                break
            count["kills"] += 1
            count["flipped bits"] += flipping.random() < flips and flip_a_bit(outputs, flipping)
            moments[phase(outputs)] += 1
        if process.returncode != 0:
            wrong.append(f"{outputs}: exit code {process.returncode}: {(outputs / 'output.txt').read_text()[-2000:]}")
        problems = differences(outputs, expected)
        count["differences from the undisturbed study"] += len(problems)
        wrong += [f"{outputs.name}: {problem}" for problem in problems]
        count["of these, noticed in a stage"] += len([*outputs.glob("stages/**/replaced/*")])
        done = [json.loads(content) for content, _ in records(outputs).values()]
        count["runs finished"] += len(done)
        count["of these, from a checkpoint"] += sum(bool(record["provenance"]["resumed"]) for record in done)
        print(f"{count['kills']} kills so far, {count['studies']} studies done", flush=True)
    counted = ("kills", "flipped bits", "of these, noticed in a stage", "starts", "studies", "runs finished")
    for what in (*counted, "of these, from a checkpoint"):
        print(f"{count[what]:4d} {what}")
    for what in ("finished runs lost", "finished runs repeated", "differences from the undisturbed study"):
        print(f"{count[what]:4d} {what}")
    print("killed during: " + ", ".join(f"{what} {number}" for what, number in moments.most_common()))
    print("\n".join(wrong))
    return 1 if wrong or count["finished runs lost"] or count["finished runs repeated"] else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="seed of the random moments (default 0)")
    parser.add_argument("--flips", type=float, default=0.5, help="share of kills after which a bit is flipped (0.5)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        return torture(arguments.kills, arguments.seed, arguments.flips, Path(folder))


if __name__ == "__main__":
    sys.exit(main())
