"""What class-specific masks owe to the classifier's choice: mask AP under other choices, in a table."""

from ablations.records.schema import ExhibitRecord
from reports.analysis import Analysis
from reports.figures.style import Figures
from reports.text.markup import Marked, emphasis, paragraphs, table
from reports.text.tables import mean_sd

CHOICES = {
    "AP_classifier": "the classifier, as in the study",
    "AP_own": "the mask branch itself: the surest mask",
    "AP_other": "nobody: the mask of the class after the right one",
}


def section(analysis: Analysis, exhibit: ExhibitRecord, figures: Figures) -> Marked:
    study = analysis.study
    arms = [arm for arm in study.record.arms if arm in exhibit.content["metrics"]]
    rows = [[label, *(mean_sd(study, arm, f"mask_choice.{name}") for arm in arms)] for name, label in CHOICES.items()]
    agreement = ["share of objects of which the surest mask is that of their class (%)"]
    rows.append(agreement + [mean_sd(study, arm, "mask_choice.agreement") for arm in arms])
    return paragraphs(
        Marked("## Who chooses the mask"),
        Marked(
            "A branch that draws a mask for each class leaves it to the classifier which of them counts. Here the same "
            "networks' detections keep their boxes, classes and scores, and only the choice of the mask changes."
        ),
        table(["who chooses", *(study.label(arm) for arm in arms)], rows),
        emphasis(
            Marked(
                "Mask AP, and below the share of objects, given their true boxes: mean and standard deviation over "
                "seeds. The surest mask is the one whose own pixels have the highest mean probability."
            )
        ),
    )
