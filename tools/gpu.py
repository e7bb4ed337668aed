"""`make gpu`: everything that only a machine with an NVIDIA GPU can tell, in ten minutes, kept as it goes.

    make gpu        or        python -m tools.gpu [--out FOLDER] [--minutes N] [--tiny]

In this order: the tests of the Triton kernels; the operators beside torchvision's; a sweep of the kernels' tiles and
warps; training steps beside torchvision's; as much of a study as the time allows. Each is a command of its own with a
share of the time, and what it has written when it fails or is stopped stays. OUT/summary.json has a line for each;
nothing is fetched. A second call does again what has not ended well. `--tiny` is a trial on any machine: tiny shapes,
the kernels in Triton's interpreter, no times worth anything.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from data.terminal import run_command

ROOT = Path(__file__).resolve().parent.parent
KERNEL_TESTS = ["tests/ops/triton_kernels/test_kernels.py", "tests/models/test_backends.py"]
KERNEL_STEPS = ("tests", "operators", "sweep")
"""Steps that a trial runs in Triton's interpreter; it would take minutes for the networks of the others."""


@dataclass(frozen=True)
class Step:
    """A command, arguments of the interpreter, and the share of the minutes that it may take."""

    name: str
    arguments: list[str]
    share: float


def steps(out: Path, tiny: bool) -> list[Step]:
    """What is run, in order of importance."""
    tests = ["-m", "pytest", "-p", "no:cacheprovider", "-rfE"]
    outputs = out / "outputs" if tiny else ROOT / "outputs/gpu"  # networks and logs, too large to keep with the records
    study = ["run.py", "study=roialign", "budget=gpu", f"outputs={outputs}"]
    report = ["-m", "reports", "roialign", "--outputs", str(outputs), "--out", str(out / "study")]
    step = ["-m", "ablations.bench.gpu", "--out", str(out / "steps")]
    trial = ["--tiny", "--rounds", "1", "--device", "cpu"] if tiny else []
    if tiny:
        tests += ["-k", "install"]
        step += ["--device", "cpu", "--side", "32", "--images", "1", "--rounds", "1", "--warm-up", "0", "--no-compile"]
        brief = ["budget.train_images=8", "budget.val_images=4", "budget.train.steps=2", "budget.rpn.steps=2"]
        study = ["run.py", "budget=smoke", *brief, f"outputs={outputs}"]
    operators = ["-m", "ops.bench", "--out", str(out / "operators"), *trial]
    return [
        Step("tests", [*tests, *(KERNEL_TESTS[:1] if tiny else KERNEL_TESTS)], 0.2),
        Step("operators", operators + (["--threads", "1"] if tiny else []), 0.25),
        Step("sweep", ["-m", "ops.bench.sweep", "--out", str(out / "operators"), *trial], 0.15),
        Step("steps", step, 0.2),
        Step("study", study, 0.2),
        *([] if tiny else [Step("report", report, 0.02)]),
    ]


def run(step: Step, out: Path, seconds: float, environment: dict[str, str]) -> dict:
    """Runs a step for at most this many seconds; its output goes to OUT/name.log. Returns its line of the summary."""
    started = time.monotonic()
    with open(out / f"{step.name}.log", "w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, *step.arguments],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code: int | None = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            stop(process)
    return {
        "command": " ".join(["python", *step.arguments]),
        "result": "out of time" if code is None else "done" if code == 0 else f"failed with {code}",
        "seconds": round(time.monotonic() - started, 1),
    }


def stop(process: subprocess.Popen) -> None:
    """Ends a step and the processes that it has started: asked first, killed after ten seconds."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        os.killpg(process.pid, how)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            continue


def has_gpu() -> bool:
    probe = "import torch, sys; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([sys.executable, "-c", probe], cwd=ROOT).returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "reports/gallery/gpu", help="folder of the records")
    parser.add_argument("--minutes", type=float, default=10, help="time for all of it (10)")
    parser.add_argument("--tiny", action="store_true", help="a trial without a GPU")
    options = parser.parse_args()
    environment = dict(os.environ)
    if options.tiny:
        environment |= {"CUDA_VISIBLE_DEVICES": ""}
    elif not has_gpu():
        print("error: expected an NVIDIA GPU that torch can use, found none. `--tiny` tries the command without one")
        return 1
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    path = out / "summary.json"
    summary = json.loads(path.read_text()) if path.exists() else {}
    end = time.monotonic() + 60 * options.minutes
    remaining = [step for step in steps(out, options.tiny) if summary.get(step.name, {}).get("result") != "done"]
    while remaining:
        step, shares = remaining.pop(0), sum(each.share for each in remaining)
        seconds = max(end - time.monotonic(), 1)
        interpreter = {"TRITON_INTERPRET": "1"} if options.tiny and step.name in KERNEL_STEPS else {}
        # What a step leaves of its time goes to those after it.
        summary[step.name] = run(step, out, seconds * step.share / (step.share + shares), environment | interpreter)
        path.write_text(json.dumps(summary, indent=1) + "\n")
        print(f"{step.name}: {summary[step.name]['result']}, {summary[step.name]['seconds']} s", flush=True)
    return 0 if all(line["result"] == "done" for line in summary.values()) else 1


if __name__ == "__main__":
    run_command(main)
