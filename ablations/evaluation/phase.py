"""How much a mask depends on where its object stands under the grid, from IoUs of scenes that slide (data/sliding.py).

A scene that has moved by 32 pixels meets the cells of either stride, 16 and 32, as it did before. What its IoU does in
both halves of 64 shifts is therefore due to the grid, and what it does in one of them to something else, such as the
image's border, which the object comes nearer to. So the measure is the covariance of the two halves: the variance of
the IoU over all places under the grid, to which nothing is added by what does not repeat. What does not repeat would
add to the variance of all 64 values, and even more to the greatest value minus the smallest.
"""

import numpy as np

PERIOD = 32
"""Pixels after which a scene meets the grids of all strides as before."""


def repeated_variances(ious: np.ndarray) -> np.ndarray:
    """[...]: the variance of each curve [..., 2 * PERIOD], IoU by shift, that its two halves share; rarely below 0."""
    halves = ious.reshape(*ious.shape[:-1], 2, PERIOD)
    first, second = np.moveaxis(halves - halves.mean(-1, keepdims=True), -2, 0)
    return (first * second).mean(-1)


def variation(variances: np.ndarray) -> np.ndarray:
    """[...]: the standard deviation that goes with the mean variance of scenes [..., scenes]; 0 if that is negative."""
    return np.sqrt(np.maximum(variances.mean(-1), 0))
