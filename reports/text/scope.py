"""How large a study is, and what it cannot say, as far as the records show it."""

import statistics
from collections.abc import Sequence
from typing import Any

from reports.analysis import Analysis
from reports.load import StudyResults
from reports.stats.paired import MOST_SEEDS, POWER, detectable_effect, seeds_for
from reports.text import provenance
from reports.text.labels import and_list, is_of_large, metric_label, number, of_all_sizes, plural, signed
from reports.text.markup import Marked, code, escape


def setting(study: StudyResults) -> Marked:
    """One sentence on the size of the experiment."""
    record = study.record
    data = study.data
    text = f"{plural(len(record.arms), 'arm')} x {plural(len(record.seeds), 'seed')}"
    steps = sorted({run.steps for run in study.runs.values()})
    if steps:
        text += f", {and_list([f'{count:,}' for count in steps], 'or')} training steps each"
    if data.get("num_train") and data.get("num_val"):
        text += f", on {data['num_train']:,} training and {data['num_val']:,} {study.evaluated}{_untouched(study)}"
    return Marked((f"{text} ({escape(data['name'])})." if data.get("name") else f"{text}.") + _jitter(study))


def origin(studies: Sequence[StudyResults]) -> Marked:
    """Where the values of several studies come from, and the paper's."""
    settings = [(study.name, study.record.config.get("data")) for study in studies]
    names = [name for name, data in settings if isinstance(data, dict) and data.get("kind", "shapes") != "shapes"]
    text = "Our values come from synthetic images and small networks"
    if names:
        text += f", except for {and_list([code(name) for name in names])}, on photographs and with a ResNet"
    return Marked(f"{text}, the paper's from COCO")


def _untouched(study: StudyResults) -> str:
    """A folder has no test images of its own: its validation images are, where the study says so."""
    is_test = study.record.config.get("split") == "test" and study.data.get("split") == "val"
    return ", on which no setting was chosen" if is_test else ""


def _jitter(study: StudyResults) -> str:
    """A sentence on proposals that were made of true boxes, with a blank before it; "" where there are none."""
    configs = {arm: study.record.config for arm in study.record.arms} if not study.runs else {}
    configs |= {arm: run.config for (arm, _), run in study.runs.items()}
    settings = {arm: config["jitter"] for arm, config in configs.items() if config.get("rpn") == "jitter"}
    if not settings:
        return ""
    where = "" if len(settings) == len(configs) else f" In {and_list([escape(study.label(arm)) for arm in settings])},"
    copies, shares = (sorted({values[name] for values in settings.values()}) for name in ("copies", "share"))
    return (
        f"{where or ' In all arms,'} proposals are true boxes with each side moved at random by up to "
        f"{and_list([f'{100 * share:g}' for share in shares])} % of the box, "
        f"{and_list([str(count) for count in copies])} for each object: how objects are found is not measured."
    )


def all_sizes(analysis: Analysis) -> Marked:
    """Where claims are about large objects: what the first of them is over all objects, and which vanish there or
    change their sign, as far as the decimals that are shown tell."""
    pairs = [
        (
            item,
            analysis.estimate(item.contrast, of_all_sizes(item.metric)),
            analysis.estimate(item.contrast, item.metric),
        )
        for item in analysis.study.record.hypotheses
        if is_of_large(item.metric)
    ]
    known = [
        (item, round(over_all.mean, 1), round(large.mean, 1))
        for item, over_all, large in pairs
        if over_all.mean is not None and large.mean is not None
    ]
    if not known:
        return Marked("")
    first, over_all, large = known[0]
    turned = [escape(analysis.label(item.contrast)) for item, one, other in known if one * other < 0]
    gone = [escape(analysis.label(item.contrast)) for item, one, other in known if one == 0 and other != 0]
    text = (
        f"Claims here are about objects of 96 px and more. {escape(analysis.label(first.contrast))}: {signed(large)} "
        f"points of {escape(metric_label(of_all_sizes(first.metric)))} on these, {signed(over_all)} over objects of "
        "all sizes."
    )
    verbs = ("has the opposite sign", "have the opposite sign"), ("vanishes", "vanish")
    counted = [(names, verb) for names, verb in zip((turned, gone), verbs, strict=True) if names]
    parts = [f"{len(names)} {verb[len(names) > 1]} ({'; '.join(names)})" for names, verb in counted]
    if parts and len(known) == 1:
        text += f" Over all objects this difference {verbs[0][0] if turned else verbs[1][0]}."
    elif parts:
        text += f" Of {plural(len(known), 'difference')}, over all objects, {and_list(parts)}."
    else:
        text += " No claimed difference has another sign over all objects than on large ones."
    return Marked(text)


def limits(analysis: Analysis) -> list[Marked]:
    """A sentence or two for each limit."""
    study = analysis.study
    seeds = "that comes with the seeds: initial weights, and the order and flips of the images"
    if analysis.noise:
        text = (
            f"The intervals over seeds cover the chance {seeds}. They do not cover other {study.evaluated}; those "
            'called "other images" do. None covers other data or other hyper-parameters.'
        )
    else:
        text = (
            f"The intervals cover the chance {seeds}. They do not cover other {study.evaluated}, other data or other "
            "hyper-parameters."
        )
    texts = [Marked(text)]
    texts += _shared(study)
    if not study.on_photographs:
        texts.append(
            Marked(
                "The images are synthetic and small, and show few classes. What holds here need not hold for "
                "photographs, least of all in size; the paper's values are given for the direction."
            )
        )
    else:
        texts += _of_photographs(study)
    texts += _resolution(analysis)
    if len({run.steps for run in study.runs.values()}) < 2:
        texts.append(
            Marked("All arms have the same number of training steps: an arm that needs more looks worse than it is.")
        )
    return texts


def _shared(study: StudyResults) -> list[Marked]:
    """What all seeds of an arm have in common, stage by stage. The images have a sentence of their own."""
    shared = [stage for stage in provenance.shared_by_seeds(study) if stage != "data"]
    texts = []
    if "backbone" in shared and _model(study).get("weights", "shipped") != "shipped":
        shared.remove("backbone")
        texts.append(
            Marked(
                "All seeds of an arm share the same `backbone`, pretrained on ImageNet by others: what another "
                "one would give is not covered by any interval."
            )
        )
    if shared:
        texts.append(
            Marked(
                f"All seeds of an arm share the same {and_list([code(stage) for stage in shared])}, trained once: what "
                "chance did there affects every run but is not covered by any interval."
            )
        )
    return texts


def _of_photographs(study: StudyResults) -> list[Marked]:
    """What a study on a folder's images leaves out, as far as its settings tell."""
    data, model, texts = study.data, _model(study), []
    classes = data.get("classes")
    if isinstance(classes, list) and len(classes) == 1:
        texts.append(f"All objects count as one class, “{escape(classes[0])}”.")
    if data.get("num_train"):
        texts.append(
            f"All seeds train on the same {data['num_train']:,} images; no interval covers other training images."
        )
    if model.get("freeze") == "all":
        texts.append(
            "The backbone is frozen, so that what it would learn for an operator is not seen, and smaller maps in a "
            "batch are padded with zeros, which RoIs at such a border may read."
        )
    if (model.get("box_hidden") or 1024) < 1024:
        texts.append(
            f"The heads are light: {model['box_hidden']} units in the box branch, where the paper has 1,024, and "
            f"{model.get('mask_channels')} channels in the mask branch, where it has 256."
        )
    if study.boxes_are_given:
        texts.append("How true boxes are moved was drawn once: every arm and seed has the same proposals.")
    return [Marked(" ".join(texts))] if texts else []


def _model(study: StudyResults) -> dict[str, Any]:
    model = study.record.config.get("model")
    return model if isinstance(model, dict) else {}


def _resolution(analysis: Analysis) -> list[Marked]:
    """How small a difference the study can find; nothing with fewer than two seeds."""
    estimates = [verdict.estimate for verdict in analysis.verdicts]
    spreads = [estimate.sd for estimate in estimates if estimate.sd]
    count = max((estimate.n for estimate in estimates), default=0)
    if not spreads or count < 2:
        return []
    spread = statistics.median(spreads)
    small = detectable_effect(spread, count)
    return [
        Marked(
            f"With the usual spread of a claim here (sd {number(spread)} points), {count} seeds find a true "
            f"difference of {number(small)} points in {100 * POWER:.0f} % of the cases.{_other_counts(spread, count)}"
        ),
        *_resolution_of_images(analysis),
    ]


def _resolution_of_images(analysis: Analysis) -> list[Marked]:
    """The same for other images; nothing where the bootstrap's errors were not kept."""
    least = [noise.detectable for noise in analysis.noise.values() if noise.detectable is not None]
    if not least:
        return []
    return [
        Marked(
            "The sample of images is a limit of its own, whatever the number of seeds: with the usual error of a claim "
            f"over images, a true difference of {number(statistics.median(least))} points is found in "
            f"{100 * POWER:.0f} % of the cases{_from_claim_to_claim(least)}."
        )
    ]


def _from_claim_to_claim(least: Sequence[float]) -> str:
    low, high = number(min(least)), number(max(least))
    return "" if low == high else f" ({low} to {high}, depending on the claim)"


def _other_counts(spread: float, count: int) -> str:
    """How many seeds round differences need, larger ones fewer than `count` and smaller ones more.

    Nothing is said of a difference that looks the same as the one that `count` seeds find.
    """
    found = number(detectable_effect(spread, count))
    effects = [(0.5, "half a point"), (1.0, "one point")]
    needed = [(seeds_for(effect, spread), name) for effect, name in effects if number(effect) != found]
    fewer, more = ([item for item in needed if (item[0] - count) * sign > 0] for sign in (-1, 1))
    texts = [
        f" {head}: {_seeds(items)}."
        for head, items in (("Larger ones need fewer", fewer), ("Smaller ones need more", more[::-1]))
        if items
    ]
    return "".join(texts)


def _seeds(items: Sequence[tuple[int, str]]) -> str:
    """ "9 seeds for half a point, 4 for one point"."""
    numbers = [str(count) if count <= MOST_SEEDS else f"more than {MOST_SEEDS}" for count, _ in items]
    nouns = [" seeds", *len(items) * [""]]
    return ", ".join(f"{text}{noun} for {name}" for text, noun, (_, name) in zip(numbers, nouns, items, strict=False))
