"""torchvision's detectors and ours with the same weights: the same boxes, scores, labels and masks."""

import pytest
import torch
from torchvision.models.detection import fasterrcnn_resnet50_fpn

from models.torchvision_weights import detect_as_torchvision, from_torchvision, is_torchvision
from tests.models.random_detector import CLASSES, SIZES, images, randomly_weighted

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("weights")]  # one process makes what the tests share


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
