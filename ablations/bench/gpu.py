"""Training steps on a GPU: the toy and ResNet-50 with a pyramid, compiled and not, beside torchvision's.

    python -m ablations.bench.gpu [--side 800] [--images 2] [--rounds N] [--warm-up N] [--out FOLDER]

The networks and batches are those of `bench.step` and `bench.resnet`; on each turn the GPU's work is waited for.
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch

from ablations.bench import resnet, step
from ablations.bench.common import compare, comparison_table, make_parser, run_benchmark, take_turns, training_steps
from data.dataset import Batch, collate
from data.scene import ShapesSpec
from data.shapes import draw
from data.terminal import run_command
from models.config import ToyConfig
from models.torchvision_weights import from_torchvision


def waited_for(call: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """The call, and then all that it left to the GPU."""

    def wait() -> None:
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return wait


def toy(images: int) -> tuple[Any, Any, Batch]:
    drawn = draw(ShapesSpec(num_train=images, num_val=1), "train")
    batch = collate([drawn[i] for i in range(images)], drawn.max_objects)
    return step.our_network(ToyConfig()), step.torchvision_network(ToyConfig()), batch


def pyramid(images: int, side: int) -> tuple[Any, Any, Batch]:
    torchvision = resnet.torchvision_network(side)
    return from_torchvision(torchvision.state_dict()), torchvision, resnet.photographs(images, side)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    torch.manual_seed(0)
    device = torch.device(options.device)
    phases, failures = {}, {}
    for name, networks in (("toy", toy(options.images)), ("resnet", pyramid(options.images, options.side))):
        ours, torchvision = (network.to(device).train() for network in networks[:2])
        batch = networks[2].to(device)
        for compiled in (False, True) if options.compile else (False,):
            phase = f"{name}, compiled" if compiled else name
            network: Any = torch.compile(ours) if compiled else ours
            steps = training_steps(network, torchvision, batch)
            waited = {side: waited_for(run, device) for side, run in steps.items()}
            try:
                seconds = take_turns(waited, options.rounds, options.warm_up)
            except Exception as error:  # what cannot be compiled must not cost the other measurements
                failures[phase] = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
                continue
            phases[phase] = {side: kinds["wall"] for side, kinds in seconds.items()}
    return compare(phases) | {"failures": failures, "side": options.side, "images": options.images}


def table(record: dict[str, Any]) -> str:
    rows = [
        (name, sides["ours"], sides["torchvision"], record["ratio"][name]) for name, sides in record["seconds"].items()
    ]
    failed = [f"{phase}: {reason}" for phase, reason in record["failures"].items()]
    return "\n".join([comparison_table(rows), *failed])


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--device", default="cuda", help="where both sides train (cuda)")
    parser.add_argument("--side", type=int, default=800, help="side of the pyramid's images in pixels (800)")
    parser.add_argument("--images", type=int, default=2, help="images per step (2)")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds (5)")
    parser.add_argument("--warm-up", type=int, default=2, help="rounds before them, on which compilers work (2)")
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="leave out compiled steps")
    run_benchmark("gpu", parser, measure, table)


if __name__ == "__main__":
    run_command(main)
