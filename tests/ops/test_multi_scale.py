"""The pyramid drop-in against torchvision's own module."""

import pytest
import torch
from torchvision.ops import MultiScaleRoIAlign as TorchvisionMultiScaleRoIAlign

from ops.multi_scale import MultiScaleRoIAlign, MultiScaleRoIPool
from ops.roi_pool import roi_pool
from tests.ops.cases import assert_near, random_boxes, random_map


def pyramid(side=128):
    return {str(i): random_map((2, 6, side >> (2 + i), side >> (2 + i)), seed=i).requires_grad_() for i in range(4)}


def pooled_and_gradients(module, maps, boxes):
    out = module(maps, boxes, [(128, 120), (100, 128)])
    out.backward(torch.linspace(-1, 1, out.numel()).view(out.shape))
    gradients = [maps[name].grad for name in sorted(maps)]
    for each in maps.values():
        each.grad = None
    return out.detach(), gradients


@pytest.mark.parametrize("names", [["0", "1", "2", "3"], ["1", "2"]])
@pytest.mark.parametrize("backend", ["reference", "compiled", "pytorch", "torchvision"], indirect=True)
def test_parity_with_torchvision(names, backend):
    boxes = [
        torch.cat([random_boxes(6, 128), random_boxes(3, 20), torch.tensor([[5.0, 5, 5, 5]])]),
        random_boxes(2, 128),
    ]
    maps = pyramid()
    options = {"canonical_scale": 56, "canonical_level": 4}
    ours = MultiScaleRoIAlign(names, 3, 2, backend=backend, **options)
    theirs = TorchvisionMultiScaleRoIAlign(names, 3, 2, **options)
    used = {name: maps[name] for name in names}
    expected, expected_gradients = pooled_and_gradients(theirs, used, boxes)
    out, gradients = pooled_and_gradients(ours, used, boxes)
    assert_near(out, expected)
    for gradient, wanted in zip(gradients, expected_gradients, strict=True):
        assert_near(torch.zeros(()) if gradient is None else gradient, torch.zeros(()) if wanted is None else wanted)


def test_no_boxes_and_missing_maps():
    module = MultiScaleRoIAlign(["0", "1"], 7, 2)
    assert module(pyramid(), [torch.zeros(0, 4)] * 2, [(128, 128)] * 2).shape == (0, 6, 7, 7)
    with pytest.raises(ValueError, match="expected some of the maps"):
        module({"pool": torch.zeros(1, 1, 4, 4)}, [torch.zeros(0, 4)], [(128, 128)])


@pytest.mark.parametrize(
    "other", [torch.zeros(1, 6, 16, 16), torch.zeros(2, 5, 16, 16), torch.zeros(2, 6, 16, 16, dtype=torch.float64)]
)
def test_maps_that_do_not_match_are_refused(other):
    maps = {"0": torch.zeros(2, 6, 32, 32), "1": other}
    with pytest.raises(ValueError, match=r"same images, channels, dtype and device, got \[2, 6, 32, 32\] float32.*and"):
        MultiScaleRoIAlign(["0", "1"], 7, 2)(maps, [torch.zeros(1, 4)] * 2, [(128, 128)] * 2)


@pytest.mark.parametrize("names", [["0", "2"], ["1", "0"]])
def test_levels_that_are_left_out_or_out_of_order_are_refused(names):
    """A box would ask for a level that no map has."""
    with pytest.raises(ValueError, match=r"from the finest to the coarsest, each half the last, got scales \[0\."):
        MultiScaleRoIAlign(names, 7, 2)(pyramid(), [torch.zeros(1, 4)] * 2, [(128, 128)] * 2)


@pytest.mark.parametrize("backend", ["reference", "compiled", "pytorch", "torchvision"], indirect=True)
def test_roi_pool_reads_each_box_from_the_map_that_roi_align_reads_it_from(backend):
    sides = torch.tensor([20.0, 70.0, 30.0, 120.0])  # FPN's equation 1 asks for levels 2, 4, 3 and 5
    boxes = torch.cat([torch.zeros(4, 2), sides[:, None].expand(4, 2)], dim=1)
    maps = pyramid()
    module = MultiScaleRoIPool(["0", "1", "2", "3"], 3, backend=backend, canonical_scale=56)
    out, gradients = pooled_and_gradients(module, maps, [boxes, boxes[:0]])
    for row, level in enumerate((0, 2, 1, 3)):
        alone = [boxes[row : row + 1], boxes[:0]]
        expected = roi_pool(maps[str(level)], alone, 3, 1 / 2 ** (2 + level), backend="reference")
        assert torch.equal(out[row : row + 1], expected)
        assert gradients[level].abs().sum() > 0


def test_torchvisions_model_takes_either_module():
    from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

    model = fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None, num_classes=3)
    names = ["1"]  # maps "0" and "1" of this backbone have the same stride
    target = {"boxes": torch.tensor([[4.0, 4, 60, 60]]), "labels": torch.tensor([1])}
    for module in (MultiScaleRoIAlign(names, 7, 2), MultiScaleRoIPool(names, 7)):
        model.roi_heads.box_roi_pool = module
        sum(model([torch.rand(3, 64, 64)], [target]).values()).backward()
        assert all(weight.grad is not None for weight in model.roi_heads.parameters())
