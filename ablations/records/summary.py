"""The metrics of a run, in points, and durations, as text for a terminal."""

from ablations.records.schema import Metrics, RunRecord

AVERAGE_PRECISION = (("segm", "mask"), ("bbox", "box"))


def headline(record: RunRecord) -> str:
    """The main metrics of a run, in one line."""
    parts = [f"{title} AP {_points(metrics['AP'])}" for title, metrics in _precisions(record).items()]
    for number, value in list(_recalls(record).get("AR", {}).items())[-1:]:
        parts.append(f"average recall {_points(value)} with {number} proposals")
    return ", ".join(parts)


def table(record: RunRecord) -> str:
    """All metrics of a run, as a table."""
    return "\n".join([*_lines(_precisions(record)), *_lines(_recalls(record)), *_on_true_boxes(record)])


def _on_true_boxes(record: RunRecord) -> list[str]:
    """The mask IoU on true boxes beside what needs no features: nothing where it is not measured."""
    masks, box, ellipse = (record.metric(f"{kind}.IoU") for kind in ("true_boxes", "floor_box", "floor_ellipse"))
    if masks is None or box is None or ellipse is None:
        return []
    floors = f"filling the box {_points(box)}, an ellipse in it {_points(ellipse)}"
    return [f"mask IoU on true boxes {_points(masks)}; {floors}"]


def _precisions(record: RunRecord) -> Metrics:
    return {title: record.metrics[kind] for kind, title in AVERAGE_PRECISION if kind in record.metrics}


def _recalls(record: RunRecord) -> Metrics:
    """A row for each IoU threshold, such as R50, and a column for each number of proposals: see evaluation.recall."""
    rows: Metrics = {}
    for name, value in record.metrics.get("recall", {}).items():
        row, _, number = name.partition("@")
        rows.setdefault(row, {})[number] = value
    return rows


def _lines(rows: Metrics) -> list[str]:
    if not rows:
        return []
    names = list(next(iter(rows.values())))
    lines = [" " * 5 + "".join(f"{name:>8}" for name in names)]
    return lines + [f"{title:5}" + "".join(f"{_points(row[name]):>8}" for name in names) for title, row in rows.items()]


def _points(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def duration(seconds: float) -> str:
    """ "95 s", "14 min", "2.5 h"."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
