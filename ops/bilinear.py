"""RoIAlign out of plain PyTorch operators: positions, then cells and weights, then weighted sums of gathered rows.

Letters: B images, K RoIs, C channels, H and W sides of the map, P and Q pooled height and width.
"""

from torch import Tensor
from torch.nn.functional import max_pool2d

from ops import gathered, sampling
from ops.validate import Rois


def roi_align(
    feature: Tensor, rois: Rois, output_size: tuple[int, int], sampling_ratio: int, aligned: bool, reduce: str
) -> Tensor:
    """RoIAlign of `feature` [B, C, H, W] at boxes already in feature cells. [K, C, P, Q], channels last."""
    height, width = feature.shape[2:]
    # In float32, positions on a map of 300 cells are rounded by 3e-5 of a cell, more than all other errors together.
    x1, y1, x2, y2 = rois.boxes.double().unbind(1)
    rows = sampling.axis_samples(y1, y2, output_size[0], sampling_ratio, aligned, height)
    columns = sampling.axis_samples(x1, x2, output_size[1], sampling_ratio, aligned, width)
    if reduce == "ave":
        along_y, along_x = sampling.mean_pairs(*rows, height), sampling.mean_pairs(*columns, width)
        return gathered.interpolate(feature, rois, along_y, along_x)
    along_y = sampling.sample_pairs(rows[0], rows[2], height)
    along_x = sampling.sample_pairs(columns[0], columns[2], width)
    samples = gathered.interpolate(feature, rois, along_y, along_x)
    if not len(samples):
        return samples.new_zeros(0, feature.shape[1], *output_size) + samples.sum()
    return max_pool2d(samples, (rows[0].shape[2], columns[0].shape[2]))
