"""Inputs that the operator tests share: random maps, boxes of every kind, and the three forms boxes come in."""

import torch
from torch import Tensor


def random_map(shape, dtype=torch.float32, channels_last=True, seed=0) -> Tensor:
    """A random [B, C, H, W] map; multiples of 1/8 in [-4, 4], so that ties occur, as they do after a ReLU."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(-32, 33, shape, generator=generator).to(dtype) / 8
    return values.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def random_boxes(num: int, side: float, seed=0) -> Tensor:
    """`num` boxes [num, 4] around a square image of `side` pixels, some partly outside it."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(num, 2, generator=generator) * side
    half = torch.rand(num, 2, generator=generator) * side / 3 + 1
    return torch.cat([centre - half, centre + half], dim=1)


def awkward_boxes(side: float) -> Tensor:
    """Boxes on, over and outside the borders, reversed, of no size, and larger than the image."""
    s = side
    return torch.tensor(
        [
            [0, 0, s, s],
            [-s, -s, 2 * s, 2 * s],
            [-0.4 * s, 0.1 * s, 0.2 * s, 0.9 * s],
            [0.9 * s, 0.9 * s, 1.3 * s, 1.2 * s],
            [3 * s, 0, 4 * s, s],
            [-4 * s, -3 * s, -2 * s, -s],
            [0.6 * s, 0.7 * s, 0.3 * s, 0.2 * s],
            [0.5 * s, 0.1 * s, 0.5 * s, 0.8 * s],
            [0.25 * s, 0.25 * s, 0.25 * s, 0.25 * s],
            [0.1 * s, 0.2 * s, 0.1 * s + 1, 0.2 * s + 1],
            [s, s, s, s],
        ]
    )


def with_image(boxes: Tensor, num_images: int) -> Tensor:
    """[K, 5]: boxes dealt to the images in turn, so that neither is any image's share contiguous nor equal."""
    image = torch.arange(len(boxes)) * 7 % num_images
    return torch.cat([image[:, None].to(boxes.dtype), boxes], dim=1)


def output_and_gradient(operator, feature: Tensor, *args, grad: Tensor | None = None, **kwargs):
    """The output, and the gradient of the map under `grad` (a fixed random one where none is given)."""
    leaf = feature.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    out = operator(leaf, *args, **kwargs)
    if grad is None:
        grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(9)).to(out.dtype)
    out.backward(grad)
    return out.detach(), leaf.grad


def assert_near(actual: Tensor, expected: Tensor, tolerance=1e-5) -> None:
    """Equal shapes, and a largest difference within `tolerance` of the expected values' scale."""
    assert actual.shape == expected.shape
    if expected.numel() == 0:
        return
    scale = float(expected.abs().max()) + 1e-12
    worst = float((actual.double() - expected.double()).abs().max())
    assert worst <= tolerance * scale, f"off by {worst:.3g} on a scale of {scale:.3g}"


def assert_same_bits(first, second) -> None:
    """Outputs and gradients alike to the bit, also where they are not a number."""
    for ours, theirs in zip(first, second, strict=True):
        assert torch.equal(ours.contiguous().view(torch.uint8), theirs.contiguous().view(torch.uint8))


def backend_of(out: Tensor) -> str:
    """Which backend of a CPU has pooled `out`: the functions that autograd has noted give it away."""
    names, waiting = "", [out.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None:
            names += f" {node.name()}"
            waiting += [before for before, _ in node.next_functions]
    signs = {"_Compiled": "compiled", "_BagSum": "pytorch", "_CropMax": "pytorch", "torchvision": "torchvision"}
    return next((backend for sign, backend in signs.items() if sign in names), "reference")
