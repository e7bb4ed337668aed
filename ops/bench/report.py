"""Table and plot of the operator benchmark, from its record alone: `python -m ops.bench.report FOLDER`."""

import argparse
import json
from pathlib import Path

from ..command import run_command

OPERATORS = {
    "roi_align": "RoIAlign",
    "roi_pool": "RoIPool",
    "multi_scale": "RoIAlign, whole pyramid",
    "ps_roi_pool": "position-sensitive",
}
SCHEMA = 2  # of the record
HEADINGS = ["operator", "case", "boxes", "threads", "implementation"]
HEADINGS += ["forward ms", "x", "backward ms", "x", "both x", "floor", "error", "target"]
LEGEND = """Smallest time of each implementation in one run, in turns. *x*: how many times as fast as torchvision in the
same group. Error: against float64, the larger of output's and gradient's, relative to its scale. Floor: the time in
which all maps and the output can be moved once at the copy bandwidth of as many threads, as a share of the forward
time (more than 100 % where boxes leave much of the maps unread, or a cache holds them). Target: what was set out for
this row before it was measured, for ours with one thread or on a GPU.
Position-sensitive pooling is given boxes of whole cells, on which torchvision's definition agrees with ours."""

# How many times as fast as torchvision each pass, or both together, should be; on a CPU with one thread.
CPU_TARGETS = {
    ("roi_align", "FPN box, adaptive"): {},  # as for a single box, nothing was set out
    ("roi_align", "one box"): {},
    ("roi_pool", "one box"): {},
    ("roi_align", "toy"): {"both": 10},
    ("roi_pool", "toy"): {"both": 8},
    ("roi_align", ""): {"forward": 6, "backward": 15},
    ("roi_pool", ""): {"forward": 3, "backward": 3},
}
GPU_TARGETS = {("roi_align", "C4"): {"forward": 8, "backward": 4}, ("multi_scale", ""): {"forward": 3}}
THREADS_TARGET = 1.6  # two threads against one
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7")  # Okabe and Ito's, apart in grey too


def write_report(folder: Path) -> None:
    """Write table.md, plot.png and plot.svg beside FOLDER/record.json."""
    record = json.loads((folder / "record.json").read_text())
    if record["schema"] != SCHEMA:
        raise SystemExit(f"{folder}/record.json: expected schema {SCHEMA}, got {record['schema']}; run ops.bench again")
    (folder / "table.md").write_text(table(record))
    if record["rows"]:
        plot(record, folder)


def groups(record: dict) -> dict[tuple, list[dict]]:
    """Rows of one case, kind of boxes and number of threads; torchvision's comes first in each."""
    grouped: dict[tuple, list[dict]] = {}
    for row in record["rows"]:
        grouped.setdefault((row["operator"], row["case"], row["boxes"], row["threads"]), []).append(row)
    return grouped


def seconds(row: dict, key: str) -> float:
    """The smallest time of a pass, "forward" or "backward", or of "both" together."""
    return min(row["forward"]) + min(row["backward"]) if key == "both" else min(row[key])


def speedup(row: dict, baseline: dict, key: str) -> float | None:
    """How many times as fast as the baseline; None where either failed its parity check."""
    if not (row["parity"] and baseline["parity"]):
        return None
    return seconds(baseline, key) / seconds(row, key)


def target(row: dict, baseline: dict, on_gpu: bool) -> str:
    """The targets of a row, each met or missed; empty where none was set."""
    if row["contender"] != "ours" or (row["threads"] != 1 and not on_gpu):
        return ""
    listed = (GPU_TARGETS if on_gpu else CPU_TARGETS).items()
    goals = next(
        (g for (operator, case), g in listed if row["operator"] == operator and row["case"].startswith(case)), {}
    )
    ratios = {key: speedup(row, baseline, key) or 0 for key in goals}
    return ", ".join(f"{key} {goal}x {'met' if ratios[key] >= goal else 'missed'}" for key, goal in goals.items())


def table(record: dict) -> str:
    """The whole record as Markdown: times, ratios to torchvision, error, and the floor that memory sets."""
    machine, bandwidths = record["machine"], record["copy_bandwidth"]
    copies = ", ".join(f"{rate / 1e9:.1f} GB/s with {n} thread{'s' * (n != '1')}" for n, rate in bandwidths.items())
    lines = [
        "# RoI operators against torchvision",
        "",
        f"{machine['device']}, {machine['cores']} cores, {machine['capability']}; torch {machine['torch']}, "
        f"torchvision {machine['torchvision']}; {machine['date']}. "
        f"Large pages: {'on' if machine['large_pages'] else 'off'}. Freed memory: {machine['memory']}. "
        f"On a CPU ours are {machine['on_cpu']}. Copy bandwidth, read and written: {copies}.",
        "",
        LEGEND,
        "",
        f"| {' | '.join(HEADINGS)} |",
        "|" + "---|" * len(HEADINGS),
    ]
    for (operator, case, boxes, threads), rows in groups(record).items():
        for row in rows:
            cells = [
                OPERATORS[operator],
                case,
                boxes,
                str(threads),
                row["contender"],
                *timings(row, rows[0], bandwidths[str(threads)]),
            ]
            lines.append(f"| {' | '.join(cells)} | {row['error']:.0e} | {target(row, rows[0], 'cuda' in machine)} |")
    lines += ["", *graph_lines(record), *model_lines(record), *thread_lines(record), ""]
    return "\n".join(lines)


def timings(row: dict, baseline: dict, bandwidth: float) -> list[str]:
    """The table's cells from forward ms to floor; a failed parity check leaves them without figures."""
    if not row["parity"]:
        return ["parity failed", "", "", "", "", ""]
    cells = []
    for key in ("forward", "backward"):
        cells += [f"{1e3 * seconds(row, key):.2f}", ratio_cell(row, baseline, key)]
    cells.append(ratio_cell(row, baseline, "both"))
    cells.append(f"{row['compulsory_bytes'] / bandwidth / min(row['forward']):.0%}")
    return cells


def ratio_cell(row: dict, baseline: dict, key: str) -> str:
    """A speed-up as the table has it."""
    ratio = speedup(row, baseline, key)
    return "-" if ratio is None else f"{ratio:.1f}"


def graph_lines(record: dict) -> list[str]:
    """On a GPU: the same calls as replayed CUDA graphs, whose data lie in the cache and whose launches cost nothing."""
    chosen = [row for row in record["rows"] if "graph_forward" in row]
    if not chosen:
        return []
    lines = [
        "As CUDA graphs, replayed with a warm cache (-: the call waits for the GPU and cannot be captured):",
        "",
        "| operator | case | boxes | implementation | forward us | forward and backward us |",
        "|---|---|---|---|---|---|",
    ]
    for row in chosen:
        times = ["-" if row[key] is None else f"{1e6 * row[key]:.0f}" for key in ("graph_forward", "graph_both")]
        cells = [OPERATORS[row["operator"]], row["case"], row["boxes"], row["contender"], *times]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def model_lines(record: dict) -> list[str]:
    """What `install()` gains in a whole model; without times where the losses differ."""
    lines = []
    for row in record.get("models", []):
        step = f"torchvision's {row['model']}, training step, {row['images']} images of {row['side']} px"
        told = f"losses differ by {row['error']:.0e} of their value"
        if row["parity"]:
            without, having = (min(row[side]) for side in ("without", "with"))
            times = f"{1e3 * without:.0f} ms, with `install()` {1e3 * having:.0f} ms"
            told = f"{times}, {without / having:.2f} times as fast; {told}"
        lines.append(f"- {step}, {row['threads']} thread{'s' * (row['threads'] > 1)}: {told}")
    return [*lines, ""] if lines else []


def thread_lines(record: dict) -> list[str]:
    """How much each operator gains from more threads, forward and backward together."""
    grouped, lines = groups(record), []
    for (operator, case, boxes, threads), rows in grouped.items():
        single = grouped.get((operator, case, boxes, 1))
        if threads == 1 or single is None:
            continue
        one, many = (next((r for r in each if r["contender"] == "ours"), None) for each in (single, rows))
        if one and many and one["parity"] and many["parity"]:
            gain = seconds(one, "both") / seconds(many, "both")
            copy = one["copy"] / many["copy"] if "copy" in one else None
            bound = copy is not None and copy < THREADS_TARGET
            verdict = f" ({'met' if gain >= THREADS_TARGET else 'no target' if bound else 'missed'})"
            beside = "" if copy is None else f", a copy of as many bytes {copy:.2f} times"
            told = f"{threads} threads {gain:.2f} times{beside}{verdict if threads == 2 else ''}"
            lines.append(f"- {OPERATORS[operator]}, {case}, {boxes}: {told}")
    heading = f"Ours with more threads against one, forward and backward together (target: {THREADS_TARGET} with two"
    rates = list(record["copy_bandwidth"].values())
    heading += f"; copying large memory gains {max(rates) / rates[0]:.2f}"
    copied = any("copy" in row for row in record["rows"])
    heading += "; no target where a copy of as many bytes gains less):" if copied else "):"
    return [heading, "", *lines] if lines else []


def plot(record: dict, folder: Path) -> None:
    """Speed-up over torchvision on a logarithmic axis, forward and backward, proposal-like boxes, fewest threads."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "ops"
    from matplotlib import pyplot

    fewest = min(row["threads"] for row in record["rows"])
    chosen = {key: rows for key, rows in groups(record).items() if key[2] == "proposals" and key[3] == fewest}
    names = list(dict.fromkeys(row["contender"] for rows in chosen.values() for row in rows[1:]))
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 1.2 + 0.45 * len(chosen)), sharey=True, layout="constrained")
    for axis, key in zip(axes, ("forward", "backward"), strict=True):
        for index, name in enumerate(names):
            points = []
            for place, rows in enumerate(chosen.values()):
                row = next((each for each in rows if each["contender"] == name), None)
                ratio = speedup(row, rows[0], key) if row else None
                if ratio is not None:
                    points.append((ratio, place))
            if points:
                xs, ys = zip(*points, strict=True)
                axis.plot(xs, ys, "osD^v<>"[index % 7], color=COLOURS[index % 4], label=name)
        axis.axvline(1, color="black", linewidth=1)
        axis.set_xscale("log")
        ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if axis.get_xlim()[0] <= t <= axis.get_xlim()[1]]
        axis.set_xticks(ticks, [f"{t:g}" for t in ticks])
        axis.minorticks_off()
        axis.grid(axis="x", color="#dddddd")
        axis.set_xlabel(f"{key}: times as fast as torchvision")
    axes[0].set_yticks(range(len(chosen)), [f"{OPERATORS[key[0]]}: {key[1]}" for key in chosen])
    axes[0].invert_yaxis()
    axes[1].legend(fontsize=8)
    device = record["machine"]["device"]
    figure.suptitle(f"{device}, {fewest} thread{'s' if fewest > 1 else ''}", fontsize=10)
    figure.savefig(folder / "plot.png", dpi=110)
    figure.savefig(folder / "plot.svg", metadata={"Date": None})
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ops.bench.report", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of record.json; table and plot are written beside it")
    write_report(parser.parse_args().folder)


if __name__ == "__main__":
    run_command(main)
