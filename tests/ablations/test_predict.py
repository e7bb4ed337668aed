"""Prediction on files: the same detections as in evaluation, results that COCO's tools read, and clear errors."""

import json

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.mask import decode
from safetensors.torch import save_file
from torchvision.transforms.functional import to_pil_image, to_tensor

from ablations import predict
from ablations.config.loading import from_hydra, from_settings
from ablations.errors import ConfigError, RecordError
from ablations.evaluation.coco import coco_results
from ablations.predict import ProposalNetwork, main, run_predictor
from ablations.records.schema import WEIGHTS, RunRecord
from ablations.records.storage import save
from ablations.stages.store import Stages
from ablations.training.device import cpu_state_dict
from data import digests
from data.dataset import collate
from data.shapes import draw
from models.build import build_backbone, build_detector, build_rpn_head
from models.initialise import initialise
from tests.damage import flip_bit
from tests.models.random_detector import SIZES, images, randomly_weighted

TINY = [
    "budget=smoke", "precision=float32", "model.channels=[4,8,8,8]", "model.blocks=[1,1,1]", "model.roi_channels=8",
    "model.weights=scratch",
    "model.shared_channels=8", "model.shared_depth=1", "model.box_hidden=8", "mask_head.channels=8",
]  # fmt: skip


def write_run(folder, config, num_classes=8):
    """Writes the files of a run that was stopped before its evaluation; returns its network."""
    model = build_detector(config.detector, num_classes)
    initialise(model, 0)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config.settings()))
    save_file(cpu_state_dict(model.state_dict()), folder / "model.safetensors")
    return model.eval()


@pytest.fixture
def joint(tmp_path, compose):
    config = from_hydra(compose([*TINY, "rpn=joint"]))
    folder = tmp_path / "outputs" / "single" / "joint" / "seed0"
    return folder, config, write_run(folder, config)


def test_settings_survive_being_written_and_read(compose):
    for overrides in ([], ["model=r50_fpn", "system=mask_rcnn"], ["system=fcis"]):
        config = from_hydra(compose(overrides))
        assert from_settings(yaml.safe_load(yaml.safe_dump(config.settings()))).hash() == config.hash()


def test_an_image_of_the_data_set_gives_the_same_results_as_evaluation(joint):
    folder, config, model = joint
    sample = draw(config.data, "val")[0]
    batch = collate([sample])
    expected = list(coco_results(model(batch.images, batch.sizes), batch))
    picture = Image.fromarray(sample.image.permute(1, 2, 0).numpy())
    assert expected
    assert run_predictor(folder, torch.device("cpu")).detect(picture, sample.image_id) == expected


def test_a_run_whose_proposals_were_made_of_true_boxes_cannot_predict(tmp_path, compose):
    config = from_hydra(compose([*TINY, "rpn=jitter"]))
    write_run(tmp_path / "run", config)
    with pytest.raises(ConfigError, match="whose proposals need no objects to be known, got rpn=jitter"):
        run_predictor(tmp_path / "run", torch.device("cpu"))


def test_results_are_in_coco_format_and_drawings_have_the_size_of_the_image(joint, tmp_path, capsys):
    folder, _, _ = joint
    rng = np.random.default_rng(0)
    paths = [tmp_path / "grey.png", tmp_path / "wide.jpg"]
    Image.fromarray(rng.integers(0, 255, (90, 130), np.uint8)).save(paths[0])
    Image.fromarray(rng.integers(0, 255, (100, 260, 3), np.uint8)).save(paths[1])
    assert main([str(folder), *map(str, paths), "--out", str(tmp_path / "out"), "--threshold", "0.1"]) == 0
    assert "grey.png" in capsys.readouterr().out
    truth = COCO()
    truth.dataset = json.loads((tmp_path / "out/images.json").read_text()) | {"annotations": [], "info": {}}
    truth.createIndex()
    detections = truth.loadRes(str(tmp_path / "out/results.json"))
    for image in truth.dataset["images"]:
        results = detections.loadAnns(detections.getAnnIds(image["id"]))
        assert results
        for result in results:
            assert result["segmentation"]["size"] == [image["height"], image["width"]]
            x, y, width, height = result["bbox"]
            assert x >= -0.01 and x + width <= image["width"] + 0.01 and y + height <= image["height"] + 0.01
        drawn = next((tmp_path / "out").glob(f"{image['id']}-*.png"))
        assert Image.open(drawn).size == (image["width"], image["height"])
    assert (np.array(Image.open(drawn)) != np.array(Image.open(paths[1]))).any()


def test_a_run_on_shared_proposals_uses_the_network_that_made_them(tmp_path, compose):
    config = from_hydra(compose(TINY))
    folder = tmp_path / "outputs" / "single" / "default" / "seed0"
    write_run(folder, config)
    with pytest.raises(ConfigError, match="rpn=joint"):
        run_predictor(folder, torch.device("cpu"))
    backbone = build_backbone(config.model, config.stride)
    network = ProposalNetwork(backbone, build_rpn_head(config.model, backbone.out_channels, config.stride))
    initialise(network, 0)
    stage = Stages(tmp_path / "outputs" / "stages", config).rpn_folder
    stage.mkdir(parents=True)
    save_file(cpu_state_dict(network.state_dict()), stage / "model.safetensors")
    assert run_predictor(folder, torch.device("cpu")).detect(Image.new("RGB", (256, 256)), 1)
    digests.write(stage)
    flip_bit(stage / "model.safetensors")
    with pytest.raises(ConfigError, match="model.safetensors is damaged"):
        run_predictor(folder, torch.device("cpu"))


def test_weights_that_are_not_what_the_run_wrote_are_not_used(joint):
    folder, config, _ = joint
    about = (config.settings(), config.hash(), {"classes": list("abcdefgh")}, {}, 3, 9, {}, {}, {}, {})
    record = RunRecord("single", "joint", 0, *about, files=digests.of_files(folder, [WEIGHTS]))
    save(record, folder / "run.json")
    run_predictor(folder, torch.device("cpu"))
    flip_bit(folder / WEIGHTS)
    with pytest.raises(RecordError, match=f"{WEIGHTS} is damaged"):
        run_predictor(folder, torch.device("cpu"))


def test_files_named_by_numbers_have_them_as_ids(tmp_path):
    assert predict.image_ids([tmp_path / "000000000139.jpg", tmp_path / "7.jpg"]) == [139, 7]
    assert predict.image_ids([tmp_path / "a.jpg", tmp_path / "7.jpg"]) == [1, 2]
    assert predict.image_ids([tmp_path / "07.jpg", tmp_path / "7.jpg"]) == [1, 2]


def test_a_file_named_by_more_digits_than_a_number_of_64_bits_has(joint, tmp_path, capsys):
    folder, _, _ = joint
    path = tmp_path / "20190521134512345678.png"
    Image.new("RGB", (64, 64)).save(path)
    assert main([str(folder), str(path), "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().err == "" and (tmp_path / "out" / f"1-{path.name}").is_file()
    (image,) = json.loads((tmp_path / "out/images.json").read_text())["images"]
    assert (image["id"], image["file_name"]) == (1, path.name)


@pytest.mark.slow
def test_weights_of_torchvision_detect_what_torchvision_detects(tmp_path, monkeypatch):
    """By the command: boxes in pixels of the file, scores, labels and pasted masks."""
    theirs = randomly_weighted()
    monkeypatch.setattr(predict, "TORCHVISION_SIZES", (SIZES["min_size"], SIZES["max_size"]))
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    path = tmp_path / "picture.png"
    to_pil_image(images()[1]).save(path)
    assert main([str(tmp_path / "weights.pth"), str(path), "--out", str(tmp_path / "out"), "--device", "cpu"]) == 0
    results = json.loads((tmp_path / "out/results.json").read_text())
    with torch.inference_mode():
        expected = theirs([to_tensor(Image.open(path))])[0]
    boxes = torch.tensor([result["bbox"] for result in results])
    boxes[:, 2:] += boxes[:, :2]
    distance = (expected["boxes"][:, None] - boxes).abs().amax(-1)
    distance += 1e3 * (expected["labels"][:, None] != torch.tensor([result["category_id"] for result in results]))
    nearest = distance.argmin(1)
    assert len(results) == len(nearest) == nearest.unique().numel() >= 20
    assert distance.amin(1).max() < 0.01
    differing = 0
    for score, probabilities, index in zip(expected["scores"], expected["masks"], nearest.tolist(), strict=True):
        assert results[index]["score"] == pytest.approx(score.item(), abs=1e-4)
        mask, true = decode(results[index]["segmentation"]), probabilities[0].numpy() >= 0.5
        assert mask.shape == true.shape
        differing += int((mask != true).sum()) > max(1, 0.001 * true.sum())
    # Pasting rounds a mask's box to whole pixels: one whose corner is all but on a pixel's border may go either way.
    assert differing <= 0.02 * len(results)


def test_an_image_that_cannot_be_read_is_reported_and_the_others_are_processed(joint, tmp_path, capsys):
    folder, _, _ = joint
    Image.new("RGB", (64, 64)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_text("no picture")
    arguments = [str(folder), str(tmp_path / "bad.png"), str(tmp_path / "good.png"), "--out", str(tmp_path / "out")]
    assert main(arguments) == 1
    assert "bad.png" in capsys.readouterr().err
    assert [image["file_name"] for image in json.loads((tmp_path / "out/images.json").read_text())["images"]] == [
        "good.png"
    ]


def test_anything_but_a_checkpoint_is_refused(joint, tmp_path, capsys):
    folder, _, _ = joint
    (tmp_path / "text.pth").write_text("no weights")
    torch.save({"code": print}, tmp_path / "code.pth")
    (tmp_path / "empty").mkdir()
    cases = {
        tmp_path / "nowhere.pth": "nowhere.pth",
        tmp_path / "text.pth": "expected a file of weights",
        tmp_path / "code.pth": "expected a file of weights",
        tmp_path / "empty": "found no config.yaml",
        folder / "model.safetensors": "give its folder",
    }
    for checkpoint, message in cases.items():
        assert main([str(checkpoint), "image.png"]) == 2
        assert message in capsys.readouterr().err
