"""What a study's records say in numbers, computed once and handed to the text, the tables and the figures."""

from dataclasses import dataclass, field
from functools import cached_property

from ablations.records.schema import Hypothesis
from reports.load import StudyResults
from reports.published import Published, read_published
from reports.stats import contrasts
from reports.stats.bootstrap import RESAMPLES, ImageBootstrap, ImageNoise
from reports.stats.contrasts import Interaction, Weights
from reports.stats.dose import Dose, doses
from reports.stats.paired import Estimate, Verdict
from reports.stats.verdicts import verdicts


@dataclass(frozen=True)
class Analysis:
    """A study with its comparisons and what came out of them.

    primary:      the metric that the headline chart shows.
    differences:  the distinct differences of two arms, in the order of the hypotheses.
    interactions: the differences of two differences.
    verdicts:     one for each hypothesis, in order.
    resamples:    how many times the images are drawn for `noise`; 0 for none.
    published:    what is kept of a study whose detections are not there.
    """

    study: StudyResults
    primary: str
    differences: list[Weights]
    interactions: list[Interaction]
    verdicts: list[Verdict]
    resamples: int = 0
    published: Published | None = None
    _bootstrap: ImageBootstrap | None = field(default=None, repr=False)
    _estimates: dict[tuple[contrasts.Key, str], Estimate] = field(default_factory=dict, repr=False)

    @cached_property
    def noise(self) -> dict[str, ImageNoise]:
        """Hypothesis -> bootstrap over the images, where stored detections allow it. Waits until it is computed."""
        return self._over_images[0]

    @property
    def floor_noise(self) -> ImageNoise | None:
        """Bootstrap over the images of how far the reference arm is above the floors; None as in `noise`."""
        return self._over_images[1]

    @cached_property
    def _over_images(self) -> tuple[dict[str, ImageNoise], ImageNoise | None]:
        if self._bootstrap is None:
            return (self.published.noise, self.published.floor) if self.published else ({}, None)
        asked = resampled(self.verdicts)
        noise = {hypothesis.name: self._bootstrap.noise(hypothesis.contrast, hypothesis.metric) for hypothesis in asked}
        floor = self.study.record.floor
        above = None if floor is None else self._bootstrap.above_floor(floor.arm, floor.figure)
        self._bootstrap.close()
        return {name: value for name, value in noise.items() if value is not None}, above

    @cached_property
    def doses(self) -> list[Dose]:
        """The marks of the dose chart; as published where there is no ground truth, on which they are measured."""
        if self.study.ground_truth is None and self.published is not None:
            return self.published.doses
        return doses(self.study)

    def wait(self) -> None:
        """Until the images are resampled: what that has read of the runs need not be read again."""
        if self._bootstrap is not None:
            self._bootstrap.wait()

    def estimate(self, weights: Weights, metric: str) -> Estimate:
        """The contrast's paired estimate over the seeds in which all of its arms are done and the metric is defined."""
        key = (contrasts.key(weights), metric)
        if key not in self._estimates:
            self._estimates[key] = contrasts.contrast_of(self.study, weights, metric)
        return self._estimates[key]

    def paper(self, weights: Weights, metric: str) -> float | None:
        """The paper's value of a contrast: of the hypothesis about it, else of its arms.

        None where it gives none, and where its values, of detectors that find objects themselves, are not comparable.
        """
        if self.study.boxes_are_given:
            return None
        for item in self.study.record.hypotheses:
            if item.paper is not None and (item.contrast, item.metric) == (dict(weights), metric):
                return item.paper
        return contrasts.paper_contrast(self.study, weights, metric)

    def label(self, weights: Weights) -> str:
        """The contrast in words; an interaction as "RoIAlign − RoIPool, stride 32 − stride 16"."""
        return contrasts.label_of(self.study, self.interactions, weights)


def analyse(study: StudyResults, resamples: int = RESAMPLES) -> Analysis:
    """resamples: of the evaluated images, which takes most of the time and goes on in the background; 0 for none."""
    judged = verdicts(study)
    # What was kept never stands for what can be computed: an archive may come with a file of that name.
    published, bootstrap = None if study.has_detections else read_published(study.folder), None
    if published is not None:
        resamples = published.resamples
    elif resamples:
        metrics = [hypothesis.metric for hypothesis in resampled(judged)]
        metrics += [f"true_boxes.{study.record.floor.figure}"] if study.record.floor else []
        bootstrap = ImageBootstrap(study, metrics, resamples)
        bootstrap.start()
    return Analysis(
        study=study,
        primary=contrasts.primary_metric(study),
        differences=contrasts.differences(study),
        interactions=contrasts.interactions(study),
        verdicts=judged,
        resamples=resamples,
        published=published,
        _bootstrap=bootstrap,
    )


def resampled(verdicts: list[Verdict]) -> list[Hypothesis]:
    """The hypotheses whose noise of the images is asked for: those with numbers."""
    return [item.hypothesis for item in verdicts if item.estimate.n]
