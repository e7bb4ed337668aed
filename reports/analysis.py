"""What a study's records say in numbers, computed once and handed to the text, the tables and the figures."""

from dataclasses import dataclass, field

from reports.load import StudyResults
from reports.stats import contrasts
from reports.stats.bootstrap import RESAMPLES, ImageBootstrap, ImageNoise
from reports.stats.contrasts import Interaction, Weights
from reports.stats.paired import Estimate, Verdict


@dataclass(frozen=True)
class Analysis:
    """A study with its comparisons and what came out of them.

    primary:      the metric of the first hypothesis, which the headline figure shows.
    differences:  the distinct differences of two arms, in the order of the hypotheses.
    interactions: the differences of two differences.
    verdicts:     one for each hypothesis, in order.
    noise:        hypothesis -> bootstrap over the images, where stored detections allow it.
    resamples:    how many times the images were drawn for `noise`.
    """

    study: StudyResults
    primary: str
    differences: list[Weights]
    interactions: list[Interaction]
    verdicts: list[Verdict]
    noise: dict[str, ImageNoise] = field(default_factory=dict)
    resamples: int = 0
    _estimates: dict[tuple[contrasts.Key, str], Estimate] = field(default_factory=dict, repr=False)

    def estimate(self, weights: Weights, metric: str) -> Estimate:
        """The contrast's paired estimate over the seeds in which all of its arms are done and the metric is defined."""
        key = (contrasts.key(weights), metric)
        if key not in self._estimates:
            self._estimates[key] = contrasts.contrast_of(self.study, weights, metric)
        return self._estimates[key]

    def paper(self, weights: Weights, metric: str) -> float | None:
        """The same contrast of the paper's figures; None unless the paper gives one for every arm."""
        return contrasts.paper_contrast(self.study, weights, metric)

    def label(self, weights: Weights) -> str:
        """The contrast in words; an interaction as "RoIAlign − RoIPool, stride 32 − stride 16"."""
        return contrasts.label_of(self.study, self.interactions, weights)


def analyse(study: StudyResults, resamples: int = RESAMPLES) -> Analysis:
    """resamples: of the validation images; 0 leaves the noise of the images out, which takes most of the time."""
    verdicts = contrasts.verdicts(study)
    return Analysis(
        study=study,
        primary=contrasts.primary_metric(study),
        differences=contrasts.differences(study),
        interactions=contrasts.interactions(study),
        verdicts=verdicts,
        noise=_image_noise(study, verdicts, resamples) if resamples else {},
        resamples=resamples,
    )


def _image_noise(study: StudyResults, verdicts: list[Verdict], resamples: int) -> dict[str, ImageNoise]:
    hypotheses = [item.hypothesis for item in verdicts if item.estimate.n and not item.hypothesis.threshold]
    bootstrap = ImageBootstrap(study, [hypothesis.metric for hypothesis in hypotheses], resamples)
    noise = {hypothesis.name: bootstrap.noise(hypothesis.contrast, hypothesis.metric) for hypothesis in hypotheses}
    return {name: value for name, value in noise.items() if value is not None}
