"""`python -m ops.bench`: the RoI operators against torchvision's, forward and backward, in one run.

Writes OUT/record.json, then table.md and plot.png and plot.svg from that record alone. Every case is first checked
against a float64 computation; where the check fails, times are left out. Contenders take turns, so that a change
of the machine's pace meets all of them, and the smallest of each one's times counts.
"""

import argparse
import ctypes
import json
import os
import platform
import time
from itertools import product
from pathlib import Path

# Tensors of many megabytes then sit on large pages on Linux; without it, filling fresh memory is half the time of
# our fastest cases. It must be set before torch is loaded, and it serves all contenders.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import torch
import torchvision

from ..command import run_command
from ..cpu import compiled
from ..geometry import pool_bins
from . import model
from .cases import Case, Contender, cases, contenders, make_boxes, make_maps, runs_triton, tiny_cases
from .report import SCHEMA, write_report

TOLERANCE = 1e-5  # of the output's scale, float32 against float64 ...
ROUNDING = 2 * 2**-24  # ... and for each cell of the map's side where positions are computed, and rounded, in float32
LOOSE = 2e-2  # for bfloat16, whose results carry eight bits


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ops.bench", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("reports/out/ops"), help="folder for record, table and plot")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", default=None, help="CPU thread counts, as in 1,2 (default: 1 and all cores)")
    parser.add_argument("--rounds", type=int, default=5, help="turns that each contender takes")
    parser.add_argument("--tiny", action="store_true", help="shapes for Triton's interpreter: a trial of the command")
    parser.add_argument("--only", default="", help="cases whose name or operator contains this")
    return parser.parse_args()


def main() -> None:
    """Measure, write the record, and render it."""
    options = parse()
    device = torch.device(options.device)
    threads = [int(n) for n in (options.threads or f"1,{os.cpu_count()}").split(",")]
    if device.type == "cuda":
        threads = threads[:1]
    bandwidth = {str(n): copy_bandwidth(device, n) for n in dict.fromkeys(threads)}
    memory = "kept" if keep_memory() else "returned"
    record: dict = {"schema": SCHEMA, "machine": machine(device) | {"memory": memory}, "rows": []}
    record["copy_bandwidth"] = bandwidth
    listed = tiny_cases() if options.tiny else cases(device.type == "cuda")
    chosen = [case for case in listed if options.only in f"{case.name} {case.operator}"]
    whole = device.type == "cpu" and not options.tiny and options.only in model.NAME
    if not chosen and not whole:
        raise SystemExit(f"--only: expected part of a case's, operator's or model's name, got {options.only!r}")
    for case in chosen:
        for kind in ("uniform",) if options.tiny else ("proposals", "uniform"):
            boxes = make_boxes(case, kind, device)
            expected = wanted(case, boxes, device)
            for num_threads in dict.fromkeys(threads):
                torch.set_num_threads(num_threads)
                rows = measure(case, boxes, expected, device, options.rounds, repeats=1 if options.tiny else 3)
                about = {"boxes": kind, "threads": num_threads, "copy": copy_seconds(case.compulsory_bytes, device)}
                record["rows"] += [about | row for row in rows]
                report_progress(record["rows"][-len(rows) :])
        write_record(options.out, record)  # after each case: what is cut short leaves what it has measured
    for num_threads in dict.fromkeys(threads) if whole else ():
        torch.set_num_threads(num_threads)
        record.setdefault("models", []).append(model.measure(num_threads, options.rounds))
        write_record(options.out, record)
    print(f"written to {options.out}/table.md, plot.png and record.json")


def write_record(out: Path, record: dict) -> None:
    """OUT/record.json, and the table and plot that follow from it."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "record.json").write_text(json.dumps(record, indent=1) + "\n")
    write_report(out)


def machine(device: torch.device) -> dict:
    """What the figures depend on."""
    info = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "on_cpu": compiled.description(),
        "large_pages": os.environ["THP_MEM_ALLOC_ENABLE"] == "1" and platform.system() == "Linux",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    if device.type == "cuda":
        import triton

        info |= {"triton": triton.__version__, "cuda": torch.version.cuda}
    return info


def processor() -> str:
    """The CPU's name where the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def keep_memory() -> bool:
    """Have freed memory kept for what is allocated next; whether that can be had.

    Otherwise glibc returns large tensors to the system, and filling fresh pages, at a pace that differs by ten from one
    call to the next, is most of the time of a short pass.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None) if platform.libc_ver()[0] == "glibc" else None
    map_threshold, trim_threshold = -3, -1  # M_MMAP_THRESHOLD, which some versions refuse, and M_TRIM_THRESHOLD
    return set_option is not None and all(set_option(option, 2**31 - 1) for option in (map_threshold, trim_threshold))


def copy_bandwidth(device: torch.device, threads: int) -> float:
    """Bytes a second, read and written, of a large copy by so many threads (a GPU: of the whole device)."""
    torch.set_num_threads(threads)
    size = 1 << 29
    return size / copy_seconds(size, device)


def copy_seconds(size: int, device: torch.device) -> float:
    """Seconds of a copy that moves `size` bytes, one half read and the other written."""
    source = torch.ones(size // 8, device=device)
    target = torch.empty_like(source)
    return min(timed(lambda: target.copy_(source), device) for _ in range(7))


def timed(function, device: torch.device) -> float:
    """Seconds of one call."""
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.empty(1 << 26, device=device).zero_()  # drives earlier data out of the cache
        start.record()
        function()
        end.record()
        torch.cuda.synchronize(device)
        return start.elapsed_time(end) / 1e3
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def measure(case: Case, boxes: torch.Tensor, expected, device: torch.device, rounds: int, repeats: int) -> list[dict]:
    """One row per contender: its parity and, where that holds, its forward and backward times in seconds.

    repeats: how often short passes are timed in each of the rounds
    """
    prepared, rows = [], []
    for contender in contenders(case, device):
        maps = make_maps(case, device, contender.channels_last)
        maps = [level.to(contender.dtype).requires_grad_() for level in maps]
        out = contender.call(maps, boxes)
        layout = torch.channels_last if contender.channels_last else torch.contiguous_format
        grad = gradient_of(out.shape).to(out).contiguous(memory_format=layout)
        error = parity(contender, out, torch.autograd.grad(out, maps, grad, allow_unused=True), expected)
        limit = LOOSE if contender.dtype != torch.float32 else TOLERANCE
        if runs_triton(device) or contender.name == "torchvision":
            limit += max(case.map_shapes[0][2:]) * ROUNDING
        rows.append(
            {
                "case": case.name,
                "operator": case.operator,
                "contender": contender.name,
                "error": error,
                "parity": error <= limit,
                "compulsory_bytes": case.compulsory_bytes,
                "forward": [],
                "backward": [],
            }
        )
        prepared.append((contender, maps, grad))
    for _ in range(rounds):
        for row, (contender, maps, grad) in zip(rows, prepared, strict=True):
            if row["parity"]:
                take_turn(row, contender, maps, boxes, grad, device, repeats)
    if device.type == "cuda":
        for row, (contender, maps, grad) in zip(rows, prepared, strict=True):
            if row["parity"]:
                replay(row, contender, maps, boxes, grad)
    return rows


def replay(row: dict, contender: Contender, maps, boxes, grad) -> None:
    """The twin with a warm cache and no launches: a CUDA graph of forward, and of forward and backward, replayed.

    None where a call cannot be captured, because it waits for the GPU.
    """
    from triton.testing import do_bench_cudagraph

    def forward():
        with torch.no_grad():
            contender.call(maps, boxes)

    def both():
        torch.autograd.grad(contender.call(maps, boxes), maps, grad, allow_unused=True)

    for key, function in (("graph_forward", forward), ("graph_both", both)):
        try:
            row[key] = do_bench_cudagraph(function, return_mode="median") / 1e3
        except RuntimeError:
            torch.cuda.synchronize()
            row[key] = None


def take_turn(row: dict, contender: Contender, maps, boxes, grad, device: torch.device, repeats: int) -> None:
    """Time one forward and one backward pass; short ones several times in a row, for warm caches."""
    out = contender.call(maps, boxes)
    for _ in range(repeats if out.numel() < 1 << 21 else 1):
        row["forward"].append(timed(lambda: contender.call(maps, boxes), device))
        row["backward"].append(
            timed(lambda: torch.autograd.grad(out, maps, grad, retain_graph=True, allow_unused=True), device)
        )


def wanted(case: Case, boxes: torch.Tensor, device: torch.device):
    """Output and gradients in float64: torchvision's, or for RoIPool those of plain loops.

    torchvision's RoIPool reads a cell too much in some bins (see `geometry.pool_bins`).
    """
    if case.operator == "roi_pool":
        out, gradient = pooled_by_loops(case, boxes.cpu())
        return out.to(device), [gradient.to(device)]
    maps = [level.double().requires_grad_() for level in make_maps(case, device, False)]
    out = contenders(case, device)[0].call(maps, boxes.double())
    gradients = torch.autograd.grad(out, maps, gradient_of(out.shape).to(out), allow_unused=True)
    return out.detach(), gradients


def gradient_of(shape: torch.Size) -> torch.Tensor:
    """The gradient that every contender is given."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


def pooled_by_loops(case: Case, boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """RoIPool's output and its map's gradient in float64, bin by bin."""
    (feature,) = (level.double() for level in make_maps(case, torch.device("cpu"), False))
    batch, channels, height, width = feature.shape
    out = feature.new_zeros(batch * case.rois_per_image, channels, case.pooled, case.pooled)
    grad, total = gradient_of(out.shape).double(), torch.zeros_like(feature)
    for k, box in enumerate((boxes.view(-1, 4) / case.strides[0]).tolist()):
        image = k // case.rois_per_image
        rows = pool_bins(box[1], box[3], case.pooled, height)
        columns = pool_bins(box[0], box[2], case.pooled, width)
        for (p, (top, bottom)), (q, (left, right)) in product(enumerate(rows), enumerate(columns)):
            if top < bottom and left < right:
                out[k, :, p, q], where = feature[image, :, top:bottom, left:right].flatten(1).max(dim=1)
                cell = (top + where // (right - left)) * width + left + where % (right - left)
                total[image].flatten(1).scatter_add_(1, cell[:, None], grad[k, :, p, q, None])
    return out, total


def parity(contender: Contender, out, gradients, expected) -> float:
    """The largest difference from float64, of output and gradients, each relative to its own scale."""
    errors = [0.0]
    for ours, right in zip([out.detach(), *gradients], [expected[0], *expected[1]], strict=True):
        if right is None and ours is None:
            continue
        if right is None or ours is None:  # autograd leaves a gradient out where a map is not read
            there = right if ours is None else ours
            ours, right = (torch.zeros_like(there) if value is None else value for value in (ours, right))
        scale = float(right.abs().max()) + 1e-30
        errors.append(float((ours.double() - right).abs().max()) / scale)
    return max(errors)


def report_progress(rows: list[dict]) -> None:
    """One line per contender while the benchmark runs."""
    for row in rows:
        times = [f"{1e3 * min(row[key]):9.2f} ms" if row[key] else "   refused " for key in ("forward", "backward")]
        print(
            f"{row['case']:20} {row['operator']:12} {row['boxes']:10} {row['threads']} threads "
            f"{row['contender']:28} {times[0]} {times[1]}  error {row['error']:.1e}",
            flush=True,
        )


if __name__ == "__main__":
    run_command(main)
