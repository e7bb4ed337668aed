"""Settings that have no effect beside certain others. They are refused: a user who gives one expects a difference."""

from collections.abc import Callable, Iterable

from ablations.config.schema import Config
from models.config import FCISConfig

MASK_HEAD = ("model.mask_channels", "model.mask_depth")
HEADS = (
    "model.box_hidden", "model.box_depth", "model.pooled_size", "model.mask_pooled_size", "model.shared_channels",
    "model.shared_depth", "model.res5_stride", *MASK_HEAD,
)  # fmt: skip
ROIS = (
    "model.rois_per_image", "model.positive_fraction", "model.score_threshold", "model.nms_threshold",
    "model.detections_per_image",
)  # fmt: skip
WANDB = ("logger.project", "logger.entity", "logger.tags", "logger.mode")
SUBMITIT = ("launcher.cluster", "launcher.options")
RPN = (
    "model.anchor_sizes", "model.anchor_ratios", "model.anchors_per_image", "model.proposals_before",
    "model.smallest_proposal", "budget.rpn",
)  # fmt: skip
DETECTOR = ("system", "roi", "mask_loss", "mask_class", "mask_head", "budget.train", *HEADS, *ROIS)


def _stages_draw_nothing(config: Config) -> bool:
    """Whether neither the backbone is pretrained here nor a shared proposal network trained."""
    return config.model.weights != "scratch" and (config.task == "proposals" or config.rpn != "separate")


UNUSED: list[tuple[Callable[[Config], bool], tuple[str, ...], str]] = [
    (lambda c: c.task == "proposals", DETECTOR, "task=proposals trains the proposal network by itself"),
    (lambda c: isinstance(c.system, FCISConfig), HEADS, "system=fcis has no heads on RoIs"),
    (lambda c: c.mask_head.kind != "fcn", MASK_HEAD, "only mask_head=fcn has it"),
    (lambda c: c.model.weights != "scratch", ("budget.backbone",), "the backbone comes pretrained (model.weights)"),
    (lambda c: True, ("budget.backbone.pretrained_lr",), "nothing is pretrained yet when the backbone is trained"),
    (lambda c: c.task == "detection" and c.rpn == "joint", ("budget.rpn",), "rpn=joint trains by budget.train alone"),
    (lambda c: c.rpn == "jitter", RPN, "rpn=jitter has no proposal network"),
    (lambda c: c.rpn != "jitter", ("jitter",), "only rpn=jitter has it"),
    (_stages_draw_nothing, ("stages",), "the runs share no network that is trained here"),
    (lambda c: not c.model.frozen, ("cache_features",), "only a fully frozen backbone has it (model.freeze=all)"),
    (lambda c: c.task == "proposals", ("snapshots",), "task=proposals trains no detector"),
    (lambda c: c.launcher.kind != "ray", ("launcher.address",), "only launcher=ray has it"),
    (lambda c: c.launcher.kind != "submitit", SUBMITIT, "only launcher=submitit has it"),
    (lambda c: c.logger.kind != "wandb", WANDB, "only logger=wandb has it"),
]
"""When settings have no effect, which ones, and why."""


def unused_settings(config: Config, keys: Iterable[str], study: bool) -> list[str]:
    """A line for each of the settings `keys`, as the user gave them, that has no effect in this configuration."""
    return [f"{key}: has no effect: {reason}; leave it out" for key, reason in reasons_unused(config, keys, study)]


def reasons_unused(config: Config, keys: Iterable[str], study: bool) -> list[tuple[str, str]]:
    """Each of the settings `keys` that has no effect in this configuration, with the reason."""
    table = [(names, reason) for applies, names, reason in UNUSED if applies(config)]
    table += [] if study else [(("budget.seeds", "budget.first_seed"), "a single run has one seed, which seed=N sets")]
    return [
        (key, reason)
        for key in keys
        for names, reason in table
        if any(key == name or key.startswith(f"{name}.") for name in names)
    ]
