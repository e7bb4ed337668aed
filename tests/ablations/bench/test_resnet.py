"""The benchmark of ResNet-50: its images and its table."""

import torch

from ablations.bench import resnet


def test_the_images_have_discs_with_their_boxes_and_masks():
    batch = resnet.photographs(2, 48)
    assert batch.images.shape == (2, 3, 64, 64) and batch.sizes.tolist() == [[48, 48]] * 2
    assert batch.labels.shape == (2, resnet.OBJECTS) and 1 <= batch.labels.min() <= batch.labels.max() <= resnet.CLASSES
    for boxes, masks in zip(batch.boxes, batch.masks, strict=True):
        for (x1, y1, x2, y2), mask in zip(boxes.tolist(), masks, strict=True):
            rows, columns = mask.nonzero().unbind(1)
            assert x1 <= columns.min() and columns.max() <= x2 and y1 <= rows.min() and rows.max() <= y2
            assert mask.sum() <= (x2 - x1 + 1) * (y2 - y1 + 1)
    again = resnet.photographs(2, 48)
    assert torch.equal(batch.images, again.images) and not torch.equal(batch.images[0], batch.images[1])


def test_the_table_has_wall_and_processor_time():
    seconds = {"ours": {"wall": 1.0, "processor": 0.5}, "torchvision": {"wall": 2.0, "processor": 2.0}}
    record = {"seconds": {"inference": seconds}, "ratio": {"inference": {"wall": 2.0, "processor": 4.0}}}
    _, wall, processor = resnet.table(record).splitlines()
    assert wall.split() == ["inference,", "wall", "time", "1000", "ms", "2000", "ms", "2.00x"]
    assert processor.split()[-5:] == ["500", "ms", "2000", "ms", "4.00x"]
