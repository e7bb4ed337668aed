"""The network: shapes, what each part may depend on, and training that learns."""

import dataclasses

import pytest
import torch
from torchvision.ops import box_iou

from models.build import build_mask_rcnn
from models.config import DetectorConfig, MaskClassConfig, MaskHeadConfig, MaskLossConfig, RoIConfig, ToyConfig
from models.initialise import initialise
from models.rpn import suppress
from models.structures import GroundTruth, Proposals

MODEL = ToyConfig(
    channels=[4, 8, 8, 16], blocks=[1, 1, 1], roi_channels=8, shared_channels=8, shared_depth=1, box_hidden=16,
    rois_per_image=8, proposals=8, anchors_per_image=16,
)  # fmt: skip
K = 3


def network(roi="align", loss="sigmoid", classes="specific", head=None, stride=16, joint=False, seed=0):
    mask_head = head or MaskHeadConfig("fcn", depth=0, channels=8)
    roi = RoIConfig(op=roi, reduce="max" if roi == "pool" else "ave")
    masks = {"mask_loss": MaskLossConfig(loss), "mask_class": MaskClassConfig(classes), "mask_head": mask_head}
    model = build_mask_rcnn(DetectorConfig(MODEL, roi=roi, **masks, stride=stride, joint_rpn=joint), K)
    initialise(model, seed)
    return model


def scene():
    """Two images of 64 px with an object each, and proposals near them."""
    boxes = torch.tensor([[[8.0, 8.0, 40.0, 40.0], [0, 0, 0, 0]], [[20.0, 12.0, 60.0, 50.0], [0, 0, 0, 0]]])
    labels = torch.tensor([[1, 0], [3, 0]])
    masks = torch.zeros(2, 2, 64, 64, dtype=torch.uint8)
    masks[0, 0, 8:40, 8:40] = 1
    masks[1, 0, 12:50, 20:60] = 1
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 0.1
    images += masks.sum(1, keepdim=True).float()
    jitter = torch.randn(2, 8, 4, generator=torch.Generator().manual_seed(1)) * 3
    near = (boxes[:, :1] + jitter).clamp(0, 64)
    near[:, 4:] = near[:, 4:].flip(0)  # half of the proposals lie where the other image's object is
    proposals = Proposals(near, torch.linspace(1, 0.3, 8).repeat(2, 1))
    truth = GroundTruth(boxes, labels, masks, crowds=torch.zeros(2, 0, 4))
    return images, torch.tensor([[64, 64]] * 2), truth, proposals


def draw(name, shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(len(name)))


@pytest.mark.parametrize("roi", ["align", "pool", "warp"])
@pytest.mark.parametrize("loss", ["sigmoid", "softmax"])
@pytest.mark.parametrize("classes", ["specific", "agnostic"])
def test_every_combination_trains_and_detects(roi, loss, classes):
    images, sizes, truth, proposals = scene()
    model = network(roi, loss, classes).train()
    losses = model(images, sizes, truth, proposals, draw)
    assert set(losses) == {"class", "box", "mask"}
    sum(losses.values()).backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert {"mask_head.logits.weight", "box_head.scores.weight"} <= trained
    assert any(name.startswith("backbone.") for name in trained)
    assert not any(name.startswith(("backbone.stages.0", "backbone.stages.1")) for name in trained)  # frozen
    results = model.eval()(images, sizes, proposals=proposals)
    assert results.masks.shape == (*results.labels.shape, 14, 14)


def test_calling_the_model_trains_or_detects_and_runs_hooks():
    images, sizes, truth, proposals = scene()
    model, seen = network(), []
    model.register_forward_hook(lambda module, arguments, output: seen.append(output))
    losses = model.train()(images, sizes, truth, proposals, draw)
    detections = model.eval()(images, sizes, proposals=proposals)
    assert seen == [losses, detections]
    expected = model.train().losses(images, sizes, truth, proposals, draw)
    assert losses.keys() == expected.keys() and all(torch.equal(losses[name], expected[name]) for name in losses)
    assert torch.equal(detections.boxes, model.detect(images, sizes, proposals).boxes)
    assert detections.valid.sum(1).amax() == detections.boxes.shape[1]
    with pytest.raises(ValueError, match="truth, draw: expected both in training mode"):
        model(images, sizes, proposals=proposals)


def test_other_mask_heads():
    images, sizes, truth, proposals = scene()
    mlp = network(head=MaskHeadConfig("mlp", depth=2, channels=16))
    assert mlp.losses(images, sizes, truth, proposals, draw)["mask"] > 0
    faster = network(head=MaskHeadConfig("none"))
    assert set(faster.losses(images, sizes, truth, proposals, draw)) == {"class", "box"}
    assert faster.eval().detect(images, sizes, proposals).masks is None


def separate(kind="fcn", depth=1, seed=0):
    """Heads as FPN has them."""
    parts = dataclasses.replace(MODEL, shared_depth=0, box_depth=2, mask_pooled_size=14)
    model = build_mask_rcnn(DetectorConfig(parts, mask_head=MaskHeadConfig(kind, depth, 8)), K)
    initialise(model, seed)
    return model


@pytest.mark.parametrize("kind, depth", [("fcn", 4), ("mlp", 2), ("mlp", 3)])
def test_separate_heads_share_nothing_but_the_backbone(kind, depth):
    images, sizes, truth, proposals = scene()
    model = separate(kind, depth).train()
    losses = model.losses(images, sizes, truth, proposals, draw)
    losses["mask"].backward(retain_graph=True)
    of_mask = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    model.zero_grad()
    (losses["class"] + losses["box"]).backward()
    of_box = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    both = of_mask & of_box
    assert both and all(name.startswith("backbone.") for name in both)
    assert {name.partition(".")[0] for name in of_mask - both} == {"mask_head"}
    assert {name.partition(".")[0] for name in of_box - both} == {"box_head"}
    results = model.eval().detect(images, sizes, proposals)
    assert results.masks.shape == (*results.labels.shape, 28, 28)


def test_a_mask_branch_of_its_own_pools_positives_in_training_and_detections_afterwards():
    images, sizes, truth, proposals = scene()
    model = separate().eval()
    seen = []
    pooling = model.mask_pooling
    model.mask_pooling = lambda features, boxes: seen.append(boxes) or pooling(features, boxes)
    model.losses(images, sizes, truth, proposals, draw)
    results = model.detect(images, sizes, proposals)
    assert seen[0].shape == (2, 4, 4)  # the half of 8 RoIs that may be positive
    ious = [box_iou(seen[0][i], truth.boxes[i, :1]) for i in range(2)]
    assert all((each >= 0.5).all() for each in ious)
    assert torch.equal(seen[1], results.boxes)


@pytest.mark.parametrize("stride", [16, 32])
def test_the_backbone_has_the_stride_it_claims(stride):
    model = network(stride=stride)
    assert model.backbone(torch.zeros(1, 3, 128, 64)).shape == (1, 8, 128 // stride, 64 // stride)


def test_cells_are_centred_on_multiples_of_the_stride():
    """What `aligned=False` assumes: the feature at cell i responds symmetrically around pixel stride * i."""
    model = network(stride=16)
    torch.manual_seed(0)
    image = torch.ones(1, 3, 257, 257, requires_grad=True)
    positive = model.backbone
    for p in positive.parameters():
        p.data.abs_()  # so that no ReLU cuts the response
    for stage in positive.stages:
        stage.requires_grad_(True)
    positive.freeze = 0
    positive(image)[0, :, 8, 8].sum().backward()
    rows = torch.nonzero(image.grad.abs().sum((0, 1, 3))).flatten()
    assert (rows.min() + rows.max()) / 2 == 16 * 8


def test_joint_training_proposes_by_itself():
    images, sizes, truth, _ = scene()
    model = network(joint=True)
    losses = model.losses(images, sizes, truth, None, draw)
    assert {"rpn_objectness", "rpn_box"} <= set(losses)
    sum(losses.values()).backward()
    assert model.rpn.conv.weight.grad.abs().sum() > 0
    assert model.eval().detect(images, sizes, None).boxes.shape[0] == 2


def test_arms_start_from_the_same_weights_wherever_shapes_agree():
    align, pool = network("align").state_dict(), network("pool").state_dict()
    assert all(torch.equal(align[name], pool[name]) for name in align)
    softmax = network(loss="softmax").state_dict()
    same = {name for name, value in align.items() if torch.equal(value, softmax[name])}
    differing = set(align) - same
    assert differing == {"mask_head.logits.weight", "mask_head.logits.bias"}  # K + 1 channels instead of K
    other = network(seed=1).state_dict()
    assert not torch.equal(align["box_head.hidden.weight"], other["box_head.hidden.weight"])


def test_padded_ground_truth_and_padded_proposals_change_nothing():
    images, sizes, truth, proposals = scene()
    model = network()
    before = model.losses(images, sizes, truth, proposals, draw)

    def padded_draw(name, shape):
        random_keys = draw(name, (2, 10))  # the same draw for what is real, anything for what pads
        return torch.cat([random_keys[:, :8], torch.rand(2, 4), random_keys[:, 8:], torch.rand(2, 2)], dim=1)

    more = Proposals(
        torch.cat([proposals.boxes, torch.zeros(2, 4, 4)], 1), torch.cat([proposals.scores, torch.zeros(2, 4)], 1)
    )
    wider = GroundTruth(
        torch.cat([truth.boxes, torch.zeros(2, 2, 4)], 1),
        torch.cat([truth.labels, torch.zeros(2, 2, dtype=torch.int64)], 1),
        torch.cat([truth.masks, torch.zeros(2, 2, 64, 64, dtype=torch.uint8)], 1),
        truth.crowds,
    )
    after = model.losses(images, sizes, wider, more, padded_draw)
    for name in before:
        torch.testing.assert_close(after[name], before[name])


def test_it_overfits_two_images():
    images, sizes, truth, proposals = scene()
    model = network().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(60):
        optimizer.zero_grad()
        losses = model.losses(images, sizes, truth, proposals, draw)
        sum(losses.values()).backward()
        optimizer.step()
    assert sum(losses.values()) < 0.4
    results = model.eval().detect(images, sizes, proposals)
    assert results.labels[:, 0].tolist() == [1, 3]
    assert (results.boxes[:, 0] - truth.boxes[:, 0]).abs().max() < 5
    assert results.masks[:, 0].mean() > 0.8


def test_suppression_is_within_classes_and_images_and_keeps_the_order():
    boxes = torch.tensor([[[0.0, 0, 10, 10], [1, 0, 10, 10], [1, 0, 10, 10], [50, 50, 60, 60]]]).repeat(2, 1, 1)
    scores = torch.tensor([[0.9, 0.8, 0.7, 0.6], [0.5, 0.95, 0.0, 0.1]])
    classes = torch.tensor([[1, 1, 2, 1], [1, 1, 2, 1]])
    kept, kept_scores, kept_classes = suppress(boxes, scores, classes, 0.5, 3)
    torch.testing.assert_close(kept_scores, torch.tensor([[0.9, 0.7, 0.6], [0.95, 0.1, 0.0]]))
    assert kept_classes.tolist() == [[1, 2, 1], [1, 1, 0]]
    assert kept[1, 0].tolist() == [1, 0, 10, 10]


def test_no_detection_at_all_is_an_empty_result():
    images, sizes, _, proposals = scene()
    model = network().eval()
    model.settings = dataclasses.replace(model.settings, score_threshold=1.0)
    results = model.detect(images, sizes, proposals)
    assert not results.valid.any()
