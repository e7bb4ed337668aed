"""The heads: what is computed from a RoI's features.

Letters: N RoIs, C channels, P pooled side, M mask side, K classes.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from models.initialise import set_initial_std


class ConvHead(nn.Sequential):
    """3x3 convolutions with ReLU that keep the resolution: [N, C, P, P] to [N, channels, P, P]."""

    def __init__(self, in_channels: int, channels: int, depth: int) -> None:
        layers: list[nn.Module] = []
        for i in range(depth):
            layers += [nn.Conv2d(channels if i else in_channels, channels, 3, padding=1), nn.ReLU(True)]
        super().__init__(*layers)
        self.out_channels = channels if depth else in_channels


class BoxHead(nn.Module):
    """Fully connected layers to class scores and class-specific box deltas (Fast R-CNN).

    depth: how many hidden layers there are; with FPN two.
    """

    def __init__(self, in_channels: int, pooled_size: int, hidden: int, num_classes: int, depth: int = 1) -> None:
        super().__init__()
        self.hidden = nn.Linear(in_channels * pooled_size**2, hidden)
        further = [layer for _ in range(depth - 1) for layer in (nn.Linear(hidden, hidden), nn.ReLU(True))]
        self.further = nn.Sequential(*further)
        self.scores = nn.Linear(hidden, num_classes + 1)
        self.deltas = nn.Linear(hidden, 4 * num_classes)
        set_initial_std(0.01, self.scores)
        set_initial_std(0.001, self.deltas)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[N, C, P, P] -> logits [N, K + 1] (background first), deltas [N, K, 4]."""
        x = self.further(F.relu(self.hidden(x.flatten(1)), inplace=True))
        return self.scores(x), self.deltas(x).unflatten(1, (-1, 4))


class AveragedBoxHead(nn.Module):
    """BoxHead on the average of the RoI's features, without a hidden layer: what follows res5 with C4 (figure 4)."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.scores = nn.Linear(in_channels, num_classes + 1)
        self.deltas = nn.Linear(in_channels, 4 * num_classes)
        set_initial_std(0.01, self.scores)
        set_initial_std(0.001, self.deltas)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[N, C, P, P] -> logits [N, K + 1] (background first), deltas [N, K, 4]."""
        x = x.mean((2, 3))
        return self.scores(x), self.deltas(x).unflatten(1, (-1, 4))


class FCNMaskHead(nn.Module):
    """Convolutions, a 2x2 deconvolution, a 1x1 convolution: pixel-to-pixel, layout kept (section 3, figure 4).

    The deconvolution's stride is its size, so its outputs do not overlap: it is a 1x1 convolution from C to 2 x 2 x C
    channels, whose four quarters are put side by side last. So computed, both layers take 0.6 of the time on a CPU.
    """

    def __init__(self, in_channels: int, channels: int, depth: int, num_channels: int) -> None:
        super().__init__()
        self.convs = ConvHead(in_channels, channels, depth)
        self.deconv = nn.ConvTranspose2d(self.convs.out_channels, channels, 2, stride=2)
        self.logits = nn.Conv2d(channels, num_channels, 1)
        set_initial_std(0.05, self.logits)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, P, P] -> [N, num_channels, M, M] with M = 2 P."""
        x = self.convs(x)
        weight = self.deconv.weight.permute(2, 3, 1, 0).flatten(0, 2)[..., None, None]  # [2 * 2 * C, C, 1, 1]
        bias = None if self.deconv.bias is None else self.deconv.bias.repeat(4)
        x = F.relu(F.conv2d(x, weight, bias), inplace=True)
        quarters = x.permute(0, 2, 3, 1).unflatten(-1, (2, 2, -1))  # [N, P, P, 2, 2, C]
        logits = F.linear(quarters, self.logits.weight.flatten(1), self.logits.bias)
        return logits.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


class MLPMaskHead(nn.Module):
    """Fully connected layers that predict the whole mask as one vector (table 2e)."""

    def __init__(self, in_channels: int, pooled_size: int, hidden: int, depth: int, num_channels: int) -> None:
        super().__init__()
        self.mask_size = 2 * pooled_size
        widths = [in_channels * pooled_size**2] + [hidden] * depth
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in zip(widths, widths[1:], strict=False):
            layers += [nn.Linear(before, after), nn.ReLU(True)]
        logits = nn.Linear(hidden, num_channels * self.mask_size**2)
        set_initial_std(0.05, logits)
        self.layers = nn.Sequential(*layers, logits)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, P, P] -> [N, num_channels, M, M] with M = 2 P."""
        return self.layers(x).unflatten(1, (-1, self.mask_size, self.mask_size))
