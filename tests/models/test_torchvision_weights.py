"""torchvision's detectors and ours with the same weights: the same boxes, scores, labels and masks."""

import pytest
import torch
from torch import nn
from torchvision.models.detection import fasterrcnn_resnet50_fpn, maskrcnn_resnet50_fpn

from models.torchvision_weights import detect_as_torchvision, from_torchvision, is_torchvision

pytestmark = pytest.mark.slow

CLASSES = 6  # with the background
SIZES = {"min_size": 96, "max_size": 150}  # padded to 128 x 160, so that P6 has a spacing of 53 pixels in torchvision


def images():
    """Two of different shapes: smooth blobs, so that features differ from place to place."""
    generator = torch.Generator().manual_seed(0)
    sizes = [(75, 105), (95, 65)]
    grids = [torch.rand(1, 3, 9, 9, generator=generator) for _ in sizes]
    return [
        torch.nn.functional.interpolate(grid, size, mode="bicubic")[0].clamp(0, 1)
        for grid, size in zip(grids, sizes, strict=True)
    ]


def randomly_weighted():
    """A Mask R-CNN of random weights that is sure of different things in different places, as a trained one is.

    Batch normalisation has the statistics of these images. Each layer behind it is scaled by what it gives for them, so
    that its outputs spread around 0 by a chosen standard deviation: otherwise all RoIs would look nearly alike, and
    what tells them apart would be hardly more than rounding.
    """
    torch.manual_seed(0)
    network = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=CLASSES, **SIZES)
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            # Blocks that add little to their input, or rounding would grow from each to the next.
            nn.init.uniform_(module.weight, *((0.02, 0.05) if name.endswith("bn3") else (0.5, 1.0)))
            nn.init.normal_(module.bias, 0, 0.2)
            module.momentum = None  # the mean of the batches that are seen
    heads = network.roi_heads
    behind = [*network.backbone.fpn.modules(), *network.rpn.modules(), *heads.modules()]
    spread = {layer: 1.0 for layer in behind if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear))}
    spread |= {
        network.rpn.head.cls_logits: 2.0,
        network.rpn.head.bbox_pred: 0.5,
        heads.box_predictor.cls_score: 1.0,
        heads.mask_predictor.mask_fcn_logits: 2.0,
    }

    def scale(layer, _, output):
        channels = output.transpose(0, 1).flatten(1)  # [channels, everything else]
        factor, middle = spread[layer] / channels.std(dim=1), channels.mean(dim=1)
        outputs = 1 if isinstance(layer, nn.ConvTranspose2d) else 0  # the dimension of the weights
        layer.weight *= factor.view([-1 if axis == outputs else 1 for axis in range(layer.weight.dim())])
        layer.bias.copy_((layer.bias - middle) * factor)
        handles.pop(layer).remove()  # the first map, or the only call, decides
        shape = [-1 if axis == 1 else 1 for axis in range(output.dim())]
        return (output - middle.view(shape)) * factor.view(shape)

    handles = {layer: layer.register_forward_hook(scale) for layer in spread}
    with torch.no_grad():
        network.backbone.body.train()(network.transform(images())[0].tensors)
        network.eval()(images())
        heads.box_predictor.cls_score.bias[0] += 2.5  # most RoIs are background
    assert not handles
    return network


@pytest.fixture(scope="module")
def mask_rcnn():
    torch.set_num_threads(1)
    return randomly_weighted()


@pytest.fixture(scope="module", params=["mask", "faster"])
def both(request, mask_rcnn):
    """torchvision's network, what it finds, and what ours finds with its weights."""
    theirs, seen = mask_rcnn, images()
    if request.param == "faster":
        theirs = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=CLASSES, **SIZES).eval()
        kept = {name: value for name, value in mask_rcnn.state_dict().items() if ".mask_" not in name}
        theirs.load_state_dict(kept)
        seen = seen[1:]
    with torch.inference_mode():
        expected = theirs(seen)
    return theirs, expected, detect_as_torchvision(from_torchvision(theirs.state_dict()), seen, theirs.transform)


def test_the_random_weights_detect_enough_to_be_told_apart(both):
    _, expected, _ = both
    for result in expected:
        assert len(result["boxes"]) >= 20 and len(result["labels"].unique()) >= 3
        assert result["scores"].max() > 0.7 and result["scores"].std() > 0.05
        if "masks" in result:
            covered = (result["masks"] > 0.5).flatten(1).float().mean(1)
            assert covered.std() > 0.01


def test_boxes_scores_labels_and_masks_agree(both):
    _, expected, actual = both
    for theirs, ours in zip(expected, actual, strict=True):
        assert theirs.keys() == ours.keys() and len(theirs["labels"]) == len(ours["labels"])
        # Matched by box, since two with nearly the same score may stand in either order.
        distance = (theirs["boxes"][:, None] - ours["boxes"]).abs().amax(-1)
        distance += 1e3 * (theirs["labels"][:, None] != ours["labels"])
        nearest = distance.argmin(1)
        assert nearest.unique().numel() == len(nearest)
        assert distance.amin(1).max() < 0.01
        assert (ours["scores"][nearest] - theirs["scores"]).abs().max() < 1e-4
        if "masks" in theirs:
            mine, other = ours["masks"][nearest] > 0.5, theirs["masks"] > 0.5
            together, either = (mine & other).sum((1, 2, 3)), (mine | other).sum((1, 2, 3))
            assert either.max() > 100 and together.sum() > 0.999 * either.sum()
            assert (either - together <= torch.ceil(0.001 * either)).all()  # at most a pixel of a small one


def test_other_states_are_refused(mask_rcnn):
    state = mask_rcnn.state_dict()
    assert is_torchvision(state) and not is_torchvision({"backbone.stages.0.0.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="maskrcnn_resnet50_fpn"):
        from_torchvision({name: value for name, value in state.items() if "rpn." not in name})
