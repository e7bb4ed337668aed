"""`python tests/ops/triton_kernels/compile_ahead.py 80 90`: compile every kernel for sm_80 and sm_90 without a GPU,
look at the result.

Fails where a kernel spills registers to local memory, does not load feature maps 16 bytes at a time, or adds gradients
in another way than by reductions without a result, from sm_90 on four floats at a time.

With a Triton other than the installed one, each of which brings a ptxas of its own:
`pip install --no-deps --target DIR triton==3.9.0`, then
`PYTHONPATH=DIR:. python tests/ops/triton_kernels/compile_ahead.py 90`.
"""

import re
import subprocess
import sys
import tempfile
import warnings

import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.driver import __file__ as nvidia_backend
from triton.compiler import ASTSource

from ops.bench import peer
from ops.triton_kernels.bilinear import (
    bilinear_backward_atomic,
    bilinear_backward_gather,
    bilinear_forward,
    maximum_forward,
)
from ops.triton_kernels.launch import BILINEAR_CHANNELS, POOL_CHANNELS, REGISTERS, TILE, TILE_ELEMENTS, WINNERS_ELEMENTS
from ops.triton_kernels.pool import pool_backward_atomic, pool_backward_gather, pool_forward

MAPS = ("map0", "map1", "map2", "map3")
TILES = {"P": 7, "Q": 7, "BLOCK_Q": 8, "BLOCK_C": TILE_ELEMENTS // 8}
SMALLER = TILES | {"BLOCK_C": WINNERS_ELEMENTS // 8}
SAMPLED = {"SAMPLING": 2, "ALIGNED": False}
ADAPTIVE = {"SAMPLING": 0, "ALIGNED": True}
INTEGER_POINTERS = ("images", "levels", "tops", "bottoms", "lefts", "rights", "order", "starts", "argmax")


def compiled(kernel, dtype: str, arch: int, accumulate: bool = False, maxnreg: int | None = None, **constants):
    """The kernel compiled for features of `dtype`; maps are float32 where they accumulate gradients."""
    signature, attributes = {}, {}
    for index, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name] = "constexpr"
        elif name in MAPS:
            signature[name] = "*fp32" if accumulate else f"*{dtype}"
        elif name in ("out", "grad"):
            signature[name] = f"*{dtype}"
        elif name in INTEGER_POINTERS:
            signature[name] = "*i32"
        elif name == "boxes":
            signature[name] = "*fp32"
        elif name == "winner":
            signature[name] = "*i8" if constants["SAMPLING"] else "*i32"
        else:
            signature[name] = "fp32" if re.fullmatch(r"scale[0-3]?", name) else "i32"
        if signature[name].startswith("*") or name == "channels":
            attributes[(index,)] = [["tt.divisibility", 16]]
    constexprs = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constexprs, attrs=attributes)
    return triton.compile(source, target=GPUTarget("cuda", arch, 32), options={"num_warps": 4, "maxnreg": maxnreg})


def inspected(cubin: bytes, *options: str) -> str:
    """What cuobjdump says of a compiled kernel: "-res-usage", "-sass" or both."""
    tool = re.sub(r"driver\.py$", "bin/cuobjdump", nvidia_backend)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run([tool, *options, file.name], capture_output=True, text=True, check=True).stdout


def check(name: str, kernel, dtype: str, arch: int, wanted: str | None, **constants) -> list[str]:
    """What is wrong with one kernel: messages, none where all is well. `wanted` is looked for in its machine code."""
    cubin, label = compiled(kernel, dtype, arch, **constants).asm["cubin"], f"{name} {dtype} {constants} sm_{arch}"
    problems = []
    listing = inspected(cubin, "-res-usage", *([] if wanted is None else ["-sass"]))
    if any(int(size) for size in re.findall(r"(?:STACK|LOCAL):(\d+)", listing)):
        problems.append(f"{label}: uses local memory")
    if wanted is not None and not re.search(wanted, listing):
        problems.append(f"{label}: no {wanted} in its machine code")
    return problems


def check_all(arch: int) -> list[str]:
    """What is wrong with any of the kernels."""
    loads = r"LDG\.E[\w.]*\.128"
    reds = r"REDG\.E\.ADD\.F32x4" if arch >= 90 else r"RED\.E\.ADD\.F32"
    tile = {"P": 7, "Q": 7, "TILE": TILE}
    gather, pool_gather = tile | {"BLOCK_C": BILINEAR_CHANNELS} | REGISTERS, tile | {"BLOCK_C": POOL_CHANNELS}
    problems = []
    for dtype in ("fp32", "bf16"):
        single = {"LEVELS": 1, "accumulate": True}
        for kernel, most in ((bilinear_forward, False), (maximum_forward, True)):
            name, rows = ("maximum", SMALLER | single) if most else ("mean", TILES | single)
            problems += check(name, kernel, dtype, arch, loads, **TILES, **SAMPLED, LEVELS=4)
            for sampling in (SAMPLED, ADAPTIVE):
                problems += check(name, kernel, dtype, arch, loads, **TILES, **sampling, LEVELS=1)
                options = sampling | {"MAX": most}
                problems += check(f"{name} backward", bilinear_backward_atomic, dtype, arch, reds, **rows, **options)
                problems += check(f"{name} gather", bilinear_backward_gather, dtype, arch, None, **gather, **options)
        problems += check("pool_forward", pool_forward, dtype, arch, loads, **TILES, **REGISTERS, LEVELS=1)
        problems += check("pool_backward", pool_backward_atomic, dtype, arch, None, **TILES, **single)
        problems += check("pool_gather", pool_backward_gather, dtype, arch, None, **pool_gather)
        scalar = {"P": 7, "Q": 7, "SAMPLING": 2, "LEVELS": 4, "BLOCK": peer.BLOCK}
        problems += check("scalar", peer.scalar_forward, dtype, arch, None, **scalar)
        problems += check("scalar", peer.scalar_backward, dtype, arch, None, accumulate=True, **scalar)
    return problems


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit("\n".join(problem for arch in sys.argv[1:] for problem in check_all(int(arch))) or None)
