"""Maps of a fully frozen backbone: kept on disk or computed anew, they make the same runs."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import resnet50

from ablations.config.loading import from_hydra
from ablations.config.study import Run
from ablations.errors import ConfigError, Stopped, TrainingError
from ablations.evaluation.coco import coco_results
from ablations.execution.jobs import plan
from ablations.execution.run import run_arm
from ablations.predict import run_predictor
from ablations.stages import features
from ablations.stages.features import frozen_backbone, network_inputs, with_maps
from ablations.stages.make import make_backbone, make_features
from ablations.stages.store import Stages, stages_of
from ablations.tasks.detection import build_model, trained_model
from data.loaders import load_batch
from tests.damage import flip_bit

pytestmark = pytest.mark.slow

SIZES = [(64, 64), (64, 100), (90, 64)]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "resnet50.pth"
    torch.save(resnet50(weights=None).state_dict(), path)
    return path


@pytest.fixture
def overrides(tmp_path, weights):
    """Of a run on three pictures of different sizes, with a square on each."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for split in ("train", "val"):
        (tmp_path / "set" / split).mkdir(parents=True)
    for key, (height, width) in enumerate(SIZES, start=1):
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        for split in ("train", "val"):
            Image.fromarray(pixels).save(tmp_path / "set" / split / f"{key}.png")
        images.append({"id": key, "file_name": f"{key}.png", "height": height, "width": width})
        shape = {"bbox": [10, 10, 40, 40], "segmentation": [[10, 10, 50, 10, 50, 50, 10, 50]], "area": 1600}
        annotations.append({"id": key, "image_id": key, "category_id": 1, "iscrowd": 0} | shape)
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "square"}]}
    (tmp_path / "set/annotations").mkdir()
    for split in ("train", "val"):
        (tmp_path / f"set/annotations/instances_{split}.json").write_text(json.dumps(content))
    return [
        *("model=r50_frozen", f"model.weights={weights}", "data=coco", f"data.root={tmp_path / 'set'}"),
        *("data.image_size=64", "data.max_size=96", "rpn=jitter", "jitter.copies=24", "budget=smoke"),
        *("budget.train.steps=2", "budget.train.images_per_step=2", f"outputs={tmp_path / 'outputs'}"),
    ]


@pytest.fixture
def stages(compose, overrides, log):
    """With a backbone, but no maps yet."""
    stages = stages_of(from_hydra(compose(overrides)))
    make_backbone(stages, log)
    return stages


def files(stages):
    return sorted(path.name for path in stages.features_folder.glob("*.npy"))


@pytest.mark.parametrize("stride", [16, 32])
def test_a_run_with_kept_maps_and_one_that_computes_them_leave_the_same_bytes(compose, overrides, log, stride):
    left = []
    for index, cached in enumerate(("true", "false")):
        config = from_hydra(compose([*overrides, f"stride={stride}", f"cache_features={cached}"]))
        run = Run("study", f"arm{index}", config)
        for job in plan([run]):
            job.work(log) if job.run is None else run_arm(run, log)
        names = ("detections.json", "true_boxes.json", "model.safetensors", "metrics.jsonl", "config.yaml")
        left.append([(run.folder / name).read_bytes() for name in names])
        assert json.loads(left[-1][0])
    assert left[0] == left[1]
    assert len(files(stages_of(config))) == 9  # three training images, mirrored too, and three others


def test_a_run_behind_a_frozen_backbone_predicts_on_pictures_as_it_detects(compose, overrides, log, tmp_path):
    run = Run("study", "arm", from_hydra(compose([*overrides, "rpn=joint"])))
    for job in plan([run]):
        job.work(log) if job.run is None else run_arm(run, log)
    stages = stages_of(run.config)
    batch = network_inputs(stages, "val")(load_batch(stages.dataset("val"), [1]))
    detected = list(coco_results(trained_model(run)(batch.images, batch.sizes), batch))
    picture = Image.open(tmp_path / "set/val/2.png")
    assert run_predictor(run.folder, torch.device("cpu")).detect(picture, 2) == detected != []
    flip_bit(stages.backbone_file)
    with pytest.raises(ConfigError, match="model.safetensors is damaged"):
        run_predictor(run.folder, torch.device("cpu"))


def test_only_a_backbone_frozen_as_a_whole_has_a_stage_of_maps(compose, overrides):
    def names(*more):
        return [job.name.split()[0] for job in plan([Run("s", "a", from_hydra(compose([*overrides, *more])))])]

    assert names() == ["data", "backbone", "features", "s:"]
    assert names("rpn=separate", "model.proposals=24") == ["data", "backbone", "features", "proposals", "s:"]
    assert names("cache_features=false") == ["data", "backbone", "s:"]
    assert names("model=r50", "stride=32") == ["data", "backbone", "s:"]


def test_maps_are_padded_by_zeros_on_either_side(stages, monkeypatch):
    batch, maps = load_batch(stages.dataset("val"), [1, 2]), [torch.ones(4, 6, 3), torch.ones(6, 4, 3)]
    monkeypatch.setattr(torch, "empty", lambda *shape: torch.full(shape, torch.nan))
    padded = with_maps(batch, maps, 16).images
    assert padded.shape == (2, 3, 6, 6) and padded.sum() == 2 * 3 * 24
    assert padded[0, :, :4].eq(1).all() and padded[1, :, :, :4].eq(1).all()


def test_a_map_is_that_of_the_single_image_whatever_else_is_in_the_batch(stages):
    maps, dataset = frozen_backbone(stages.backbone_file, stages.config, stages.device), stages.dataset("val")
    together = maps(load_batch(dataset, [0, 1, 2]))
    alone = [maps(load_batch(dataset, [index]))[0] for index in range(3)]
    assert all(torch.equal(a, b) for a, b in zip(together, alone, strict=True))
    assert [tuple(of_image.shape) for of_image in alone] == [(4, 4, 1024), (4, 6, 1024), (6, 4, 1024)]
    assert {of_image.dtype for of_image in alone} == {torch.float16}


def test_the_network_gets_maps_padded_by_zeros_and_mirrored_where_the_images_are(stages, log):
    make_features(stages, log)
    inputs, dataset = network_inputs(stages, "train"), stages.dataset("train")
    maps = frozen_backbone(stages.backbone_file, stages.config, stages.device)
    batch = load_batch(dataset, [0, 2], [False, True])
    images = inputs(batch).images
    assert images.shape == (2, 1024, 6, 4) and images.dtype == torch.float32
    assert not images[0, :, 4:].any() and images[0, :, :4].any()
    assert torch.equal(images[1].permute(1, 2, 0), maps(batch)[1].float())
    assert not torch.equal(images[1], inputs(load_batch(dataset, [2], [False])).images[0])


def test_photographs_are_not_read_again_where_their_maps_are_kept(stages, log, monkeypatch):
    batch = load_batch(stages.dataset("train"), [0, 2], [False, True])
    computed = Stages(stages.root, dataclasses.replace(stages.config, cache_features=False)).samples("train")
    assert torch.equal(load_batch(computed, [0, 2], [False, True]).images, batch.images)
    monkeypatch.setattr("data.coco.read_image", None)
    without = load_batch(stages.samples("train"), [0, 2], [False, True])
    for name, value in without.__dict__.items():
        assert torch.equal(value, torch.zeros_like(batch.images) if name == "images" else getattr(batch, name)), name
    assert without.images.untyped_storage().nbytes() == 4


def test_strides_have_the_same_heads_behind_a_convolution_of_their_own(compose, overrides, stages):
    networks = [
        build_model(Stages(stages.root, from_hydra(compose([*overrides, f"stride={stride}"])))) for stride in (16, 32)
    ]
    shapes = [{name: tuple(value.shape) for name, value in network.state_dict().items()} for network in networks]
    assert [shape.pop("backbone.layer.weight") for shape in shapes] == [(64, 1024, 1, 1), (64, 2048, 1, 1)]
    assert shapes[0] == shapes[1] and all(p.requires_grad for p in networks[0].parameters())


def test_a_killed_stage_goes_on_but_not_with_maps_of_other_code(stages, log, monkeypatch):
    stop = iter([False] * 4 + [True])

    def check():
        if next(stop, False):
            raise Stopped("stopped on request")

    monkeypatch.setattr(features, "check_stop", check)
    with pytest.raises(Stopped):
        make_features(stages, log)
    partial = stages.root / f".partial-{stages.features_folder.name}"
    stamps = {path.name: path.stat().st_mtime_ns for path in partial.glob("*.npy")}
    assert len(stamps) == 4
    kept = shutil.copytree(partial, stages.root / "kept")
    make_features(stages, log)
    done = {name: (stages.features_folder / name).stat().st_mtime_ns for name in files(stages)}
    assert len(done) == 9 and done.items() >= stamps.items()

    shutil.rmtree(stages.features_folder)
    shutil.copytree(kept, partial)
    (partial / "code.txt").write_text("other\n")
    np.save(partial / "train-0.npy", np.zeros((4, 4, 1024), np.float16))
    make_features(stages, log)
    assert len(files(stages)) == 9 and np.load(stages.features_folder / "train-0.npy").any()


def test_a_disk_without_room_is_refused_with_the_size_and_what_to_do(stages, log, monkeypatch):
    usage = shutil.disk_usage(stages.root)
    monkeypatch.setattr(features.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(TrainingError, match=r"expected \S+ GB of free space .* cache_features=false"):
        make_features(stages, log)
    # Cells of the padded images 64 x 64, 64 x 96 and 96 x 64; training images twice; 1024 channels of 2 bytes.
    size = 3 * (16 + 24 + 24) * 1024 * 2
    assert f"maps of 3 training images, each mirrored too, and of 3 evaluated ones: about {size / 1e9:.2g} GB" in (
        log.file.getvalue()
    )


def test_a_damaged_map_is_made_again_or_if_it_is_damaged_later_not_used(stages, log):
    make_features(stages, log)
    flip_bit(stages.features_folder / "val-1.npy")
    make_features(stages, log)
    assert "val-1.npy is damaged" in log.file.getvalue()
    inputs, dataset = network_inputs(stages, "val"), stages.dataset("val")
    flip_bit(stages.features_folder / "val-1.npy")
    inputs(load_batch(dataset, [0]))
    with pytest.raises(TrainingError, match=r"val-1.npy is damaged.*; run the same command again"):
        inputs(load_batch(dataset, [1]))


def test_maps_beyond_float16_are_refused(stages):
    frozen = frozen_backbone(stages.backbone_file, stages.config, stages.device)
    with torch.no_grad():
        frozen.backbone.stages[3][-1].conv3.shift += 1e6
    with pytest.raises(TrainingError, match="float16"):
        frozen(load_batch(stages.dataset("val"), [0]))


@pytest.mark.parametrize(
    "given, expected",
    [
        (["model=r50_fpn", "model.freeze=all"], "expected a number, got .*: a pyramid"),
        (["model=r50", "model.roi_channels=64"], "expected null, got 64: it goes with freeze=all"),
        (["model=r50_c4", "model.freeze=all", "model.roi_channels=64"], "expected null, got 64: res5 follows the map"),
        (["model=toy", "model.freeze=all"], "0 to 3 stages"),
        (["model.freeze=6"], "0 to 4 stages, or all"),
        (["model.freeze=most"], "model.freeze"),
    ],
)
def test_settings_that_do_not_go_with_a_frozen_backbone_are_refused(compose, overrides, given, expected):
    model = [item for item in given if item.startswith("model=")]
    rest = [item for item in overrides if not (model and item.startswith(("model=", "model.weights=")))]
    with pytest.raises(ConfigError, match=expected):
        from_hydra(compose([*model, *rest, *(item for item in given if item not in model)]))


def test_another_precision_or_stride_has_maps_of_its_own(stages):
    keys = {stages.features_key}
    for change in (
        {"stride": 32},
        {"precision": "float16"},
        {"data": dataclasses.replace(stages.config.data, num_val=2)},
    ):
        keys.add(Stages(stages.root, dataclasses.replace(stages.config, **change)).features_key)
    assert len(keys) == 4
