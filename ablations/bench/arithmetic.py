"""How much of a study's training step is arithmetic: the step beside its convolutions and matrix products alone.

    make bench        or        python -m ablations.bench.arithmetic [--threads N] [--out FOLDER] [SETTING=VALUE ...]

The step is that of a run with the given settings, in the precision that this machine trains in. Its convolutions and
matrix products, forward and backward, are repeated alone, on the tensors that they had in the step. What the step takes
beyond them is casts, layouts, RoI operators, elementwise operations, the optimiser and Python: a profile says how much
is spent on each.
"""

import argparse
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import FlopCounterMode

from ablations.bench.common import make_parser, run_benchmark, take_turns
from ablations.config.loading import from_hydra
from ablations.config.overrides import composer, group_options
from ablations.records.run_log import RunLog
from ablations.stages.make import make_backbone, make_data
from ablations.stages.store import stages_of
from ablations.tasks.detection import build_model, detection_training
from ablations.training.loop import Trainer
from data.terminal import run_command

MAIN_STUDY = ["model=toy_fpn_head"]
"""The settings of the main study's runs, at stride 16."""

BRIEF = ["device=cpu", "rpn=jitter", "budget.train_images=64", "budget.val_images=8"]
"""Few images and no proposal network: neither is part of a run's step."""

ROUNDS = 15
WARM_UP = 3

ARITHMETIC = ("convolution", "convolution_backward", "mm", "addmm", "bmm")
"""PyTorch operators that are repeated alone."""

PARTS = {
    "convolutions, matrix products": r"conv|mm$|matmul|linear$",
    "casts and copies": r"::(copy_|_to_copy|clone|contiguous|cat|stack|fill_|zero_)$",
    "RoI operators": r"_Compiled",
    "clipping and optimiser": r"[Oo]ptim|adamw|_foreach|vector_norm",
    "other operators": r"",
}
"""The parts of a step, and the names of PyTorch's profiler that belong to each: the first that fits counts."""


@contextmanager
def trainer(overrides: list[str]) -> Iterator[Trainer]:
    """The training of a run with these settings, its stages in a temporary folder."""
    with tempfile.TemporaryDirectory() as outputs, RunLog(Path(outputs), "bench") as log:
        with composer(group_options()) as compose:
            config = from_hydra(compose([*BRIEF, f"outputs={outputs}", *overrides]))
        stages = stages_of(config)
        make_data(stages, log)
        make_backbone(stages, log)
        yield Trainer(detection_training(build_model(stages), stages))


class ArithmeticCalls(TorchDispatchMode):
    """While active, keeps every convolution and matrix product, with copies of its tensors in their layouts."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Callable[[], Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.overloadpacket.__name__ in ARITHMETIC:
            kept = tree_map(lambda value: value.detach().clone() if isinstance(value, Tensor) else value, args)
            self.calls.append(lambda: func(*kept, **kwargs))
        return func(*args, **kwargs)

    def repeat(self) -> None:
        for call in self.calls:
            call()


def shares_by_part(step: Callable[[], object], rounds: int) -> dict[str, float]:
    """Shares of the time of a step: of each of PARTS, and of Python, which is what no operator takes."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        began = time.perf_counter()
        for _ in range(rounds):
            step()
        microseconds = 1e6 * (time.perf_counter() - began)
    shares = dict.fromkeys(PARTS, 0.0)
    for event in profiler.key_averages():
        part = next(name for name, pattern in PARTS.items() if re.search(pattern, event.key))
        shares[part] += event.self_cpu_time_total / microseconds
    return shares | {"Python": 1 - sum(shares.values())}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    with trainer(options.settings) as training:
        step = lambda: training.step(0)  # noqa: E731
        with FlopCounterMode(display=False) as counter:
            step()
        with ArithmeticCalls() as arithmetic:
            step()
        turns = take_turns({"step": step, "alone": arithmetic.repeat}, options.rounds, WARM_UP)
        seconds = {name: statistics.median(kinds["wall"]) for name, kinds in turns.items()}
        shares = shares_by_part(step, options.rounds)
    return {
        "settings": options.settings,
        "precision": training.spec.precision,
        "threads": options.threads,
        "gflop": counter.get_total_flops() / 1e9,
        "seconds": seconds,
        "all_seconds": {name: kinds["wall"] for name, kinds in turns.items()},
        "ratio": seconds["alone"] / seconds["step"],
        "parts": shares,
    }


def table(record: dict[str, Any]) -> str:
    step, alone = record["seconds"]["step"], record["seconds"]["alone"]
    return "\n".join(
        [
            f"{' '.join(record['settings'])}, {record['precision']}, {record['gflop']:.1f} GFLOP a step",
            f"{'':34}{'ms':>7}{'GFLOP/s':>10}",
            f"{'a training step':34}{1e3 * step:7.1f}{record['gflop'] / step:10.0f}",
            f"{'its convolutions, products alone':34}{1e3 * alone:7.1f}{record['gflop'] / alone:10.0f}",
            f"\nThe step reaches {record['ratio']:.0%} of the rate of its arithmetic alone. In a profile of it:",
            *(f"  {name:32}{share:7.1%}" for name, share in record["parts"].items()),
        ]
    )


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument(
        "settings",
        nargs="*",
        default=MAIN_STUDY,
        metavar="SETTING=VALUE",
        help="of the run (model=toy_fpn_head)",
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of the step (1, as in runs of a study)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="steps that are timed and profiled")
    run_benchmark("arithmetic", parser, measure, table)


if __name__ == "__main__":
    run_command(main)
