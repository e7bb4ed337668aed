"""Any folder in COCO format as an instance set."""

from dataclasses import dataclass

from data.dataset import InstanceSet


@dataclass(frozen=True)
class CocoSpec:
    """Where a COCO-format set is.

    root: its folder
    """

    root: str = ""

    def validate(self) -> None:
        """Raises ValueError when no folder is given."""
        if not self.root:
            raise ValueError("data.root: expected the folder of a COCO-format set, got nothing; pass data.root=FOLDER")


def load(spec: CocoSpec, split: str) -> InstanceSet:
    """The split's images and objects."""
    raise NotImplementedError
