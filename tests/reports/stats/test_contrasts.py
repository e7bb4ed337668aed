"""Which pairs of arms a study's hypotheses compare."""

from ablations.records.schema import Hypothesis
from reports.stats.contrasts import differences
from tests.reports.text.hand_made import study

FORWARD, REVERSE = {"align16": 1.0, "pool16": -1.0}, {"pool16": 1.0, "align16": -1.0}


def test_a_difference_and_its_reverse_are_one_in_the_direction_that_comes_first():
    claims = [
        Hypothesis(f"claim{number}", "One is ahead.", "segm.AP", weights)
        for number, weights in enumerate((FORWARD, REVERSE, {"align32": 1.0, "pool32": -1.0}))
    ]
    assert differences(study(hypotheses=claims)) == [FORWARD, {"align32": 1.0, "pool32": -1.0}]
    assert differences(study(hypotheses=claims[1:2])) == [REVERSE]
