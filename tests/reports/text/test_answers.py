"""Sentences that are filled from the records."""

import pytest

from reports.analysis import analyse
from reports.text.answers import fill, value
from tests.reports.text.hand_made import study


@pytest.fixture
def studies():
    return {"roialign": analyse(study(), resamples=0)}


def test_values_of_hypotheses_and_of_arms(studies):
    name = studies["roialign"].verdicts[0].hypothesis.name
    text = fill(f"{{roialign/{name}}} more: {{roialign/align16/segm.AP}}.", studies)
    assert text == "**11.0** more: **42.0**."


def test_a_sentence_follows_the_sign(studies):
    name = studies["roialign"].verdicts[0].hypothesis.name
    sentence = f"{{size of roialign/{name}}} points {{sign of roialign/{name}: ahead | behind}}"
    assert fill(sentence, studies) == "**11.0** points ahead"
    arms = list(studies["roialign"].study.record.arms)
    for arm in arms:
        assert value(f"roialign/{arm}/segm.AP", studies) == studies["roialign"].study.mean(arm, "segm.AP")


def test_what_is_not_measured(studies):
    assert fill("{other/one} and {other/arm/segm.AP}", studies) == ""
    assert fill("{other/one} and {roialign/align16/segm.AP}", studies) == "– and **42.0**"
    assert value("roialign/nobody", studies) is None
