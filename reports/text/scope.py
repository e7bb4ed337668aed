"""How large a study is, and what it cannot say, as far as the records show it."""

import statistics

from reports.analysis import Analysis
from reports.load import StudyResults
from reports.stats.paired import MOST_SEEDS, POWER, detectable_effect, seeds_for
from reports.text import provenance
from reports.text.labels import and_list, number, plural


def setting(study: StudyResults) -> str:
    """One sentence on the size of the experiment."""
    record = study.record
    data = study.data
    text = f"{plural(len(record.arms), 'arm')} x {plural(len(record.seeds), 'seed')}"
    steps = sorted({run.steps for run in study.runs.values()})
    if steps:
        text += f", {' or '.join(f'{count:,}' for count in steps)} training steps each"
    if data.get("num_train") and data.get("num_val"):
        text += f", on {data['num_train']:,} training and {data['num_val']:,} validation images"
    return f"{text} ({data['name']})." if data.get("name") else f"{text}."


def limits(analysis: Analysis) -> list[str]:
    """A sentence or two for each limit."""
    study = analysis.study
    texts = [
        "The intervals hold the chance of the seeds: initial weights, the order and flips of the images. They do "
        "not hold that of other validation images, other data or other hyper-parameters."
    ]
    shared = provenance.shared_by_seeds(study)
    if shared:
        texts.append(
            f"All seeds of an arm stand on the same {and_list(shared)}: trained once, so the luck of that "
            f"training is in every run and in no interval."
        )
    if study.data.get("name") == "shapes":
        texts.append(
            "The images are drawn, small, and of few classes. What holds here need not hold on photographs, "
            "in size above all; the paper's figures stand beside for the direction."
        )
    texts += _resolution(analysis)
    texts.append(
        "One schedule, the same for all arms and not tuned for any of them: an arm that needed another one "
        "would look worse than it is."
    )
    return texts


def _resolution(analysis: Analysis) -> list[str]:
    """How small a difference the study can find; nothing with fewer than two seeds."""
    estimates = [verdict.estimate for verdict in analysis.verdicts]
    spreads = [estimate.sd for estimate in estimates if estimate.sd]
    count = max((estimate.n for estimate in estimates), default=0)
    if not spreads or count < 2:
        return []
    spread = statistics.median(spreads)
    small = detectable_effect(spread, count)
    return [
        f"With the usual spread of a claim here (sd {number(spread)} points), {count} seeds find a true "
        f"difference of {number(small)} points in {100 * POWER:.0f} % of the cases. Smaller ones need "
        f"more: {_needed(spread, 1.0)} seeds for 1 point, {_needed(spread, 0.5)} for half a point."
    ]


def _needed(spread: float, effect: float) -> str:
    count = seeds_for(effect, spread)
    return str(count) if count <= MOST_SEEDS else f"more than {MOST_SEEDS}"
