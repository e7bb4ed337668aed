"""`python -m ops.bench.sweep`: the sizes of the Triton kernels' tiles and their warps, measured, and the best of them.

Writes OUT/sweep.json: for each case and pass the seconds of every setting, and `choice`, the setting with the smallest
sum of times relative to each row's best. The settings are constants of `triton_kernels/launch.py`, to be set by hand.
"""

import argparse
import json
from itertools import product
from pathlib import Path

import torch

from ..command import run_command
from ..triton_kernels import launch
from .__main__ import machine, timed
from .cases import Case, cases, contenders, make_boxes, make_maps, tiny_cases

ATOMIC: dict[str, tuple[int, ...]] = {"TILE_ELEMENTS": (1024, 2048, 4096), "WARPS": (2, 4, 8)}
"""Constants of the forward and the atomic backward passes."""

GATHER: dict[str, tuple[int, ...]] = {"TILE": (4, 8), "BILINEAR_CHANNELS": (32, 64, 128), "POOL_CHANNELS": (64, 128)}
"""Constants of the deterministic backward passes."""

OURS = {"ours": ATOMIC, "ours, deterministic": GATHER}


def settings_of(choices: dict[str, tuple[int, ...]]) -> list[dict[str, int]]:
    """Every combination of the constants' values."""
    return [dict(zip(choices, values, strict=True)) for values in product(*choices.values())]


def measure(case: Case, name: str, setting: dict[str, int], device: torch.device, rounds: int) -> dict[str, float]:
    """The smallest seconds of a forward and a backward pass under a setting; infinity where it cannot be built."""
    before = {constant: getattr(launch, constant) for constant in setting}
    contender = next(each for each in contenders(case, device) if each.name == name)
    maps = [each.requires_grad_() for each in make_maps(case, device, contender.channels_last)]
    boxes = make_boxes(case, "proposals", device)
    try:
        for constant, value in setting.items():
            setattr(launch, constant, value)
        out = contender.call(maps, boxes)
        grad = torch.ones_like(out)

        def backward():
            torch.autograd.grad(out, maps, grad, retain_graph=True, allow_unused=True)

        backward()
        forward = min(timed(lambda: contender.call(maps, boxes), device) for _ in range(rounds))
        return {"forward": forward, "backward": min(timed(backward, device) for _ in range(rounds))}
    except Exception as error:  # a setting too large for the GPU's registers or memory is no fault of the others
        print(f"{case.name} {case.operator} {setting}: {type(error).__name__}: {error}")
        return {"forward": float("inf"), "backward": float("inf")}
    finally:
        for constant, value in before.items():
            setattr(launch, constant, value)


def choose(rows: list[dict]) -> dict[str, int]:
    """The setting that is best over all cases, among rows with `setting`, `forward` and `backward`."""
    totals: dict[str, float] = {}
    for case in {row["case"] for row in rows}:
        case_rows = [row for row in rows if row["case"] == case]
        for part in ("forward", "backward"):
            best = min(row[part] for row in case_rows)
            for row in case_rows:
                key = json.dumps(row["setting"])
                totals[key] = totals.get(key, 0) + row[part] / best
    return json.loads(min(totals, key=lambda key: totals[key]))


def main() -> None:
    """Measure every setting on every case, and keep what has been measured after each case."""
    parser = argparse.ArgumentParser(prog="python -m ops.bench.sweep", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("reports/out/ops"), help="folder of the record")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=5, help="times that each setting is timed")
    parser.add_argument("--tiny", action="store_true", help="shapes for Triton's interpreter: a trial of the command")
    options = parser.parse_args()
    device = torch.device(options.device)
    listed = [case for case in cases(gpu=True) if case.operator != "ps_roi_pool" and "toy" not in case.name]
    record: dict = {"machine": machine(device), "rows": [], "choice": {}}
    options.out.mkdir(parents=True, exist_ok=True)
    for case, (name, choices) in product(tiny_cases()[:1] if options.tiny else listed, OURS.items()):
        settings = settings_of(choices)[:2] if options.tiny else settings_of(choices)
        for setting in settings:
            row = {"case": f"{case.name}, {case.operator}", "contender": name, "setting": setting}
            record["rows"].append(row | measure(case, name, setting, device, options.rounds))
        record["choice"][name] = choose([row for row in record["rows"] if row["contender"] == name])
        (options.out / "sweep.json").write_text(json.dumps(record, indent=1) + "\n")
        print(f"{case.name} {case.operator} {name}: {record['choice'][name]}", flush=True)


if __name__ == "__main__":
    run_command(main)
