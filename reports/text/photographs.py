"""What a report has to say where it shows photographs: who made them, under which licences, and what was changed."""

from collections import defaultdict
from typing import Any

from reports.load import StudyResults
from reports.text.labels import plural
from reports.text.markup import Marked, code, escape

SHARE_ALIKE = "/by-sa/"
FLICKR = "flickr.com"
COCO = (
    "Their outlines and boxes are annotations of the COCO Consortium (`https://cocodataset.org`), under Creative "
    "Commons Attribution 4.0 (`https://creativecommons.org/licenses/by/4.0/`)."
)


def licensed(study: StudyResults) -> list[dict[str, Any]]:
    """The photographs that a report shows, as far as their licences are known: id, source and licence of each."""
    shown = {image_id for image_id, _ in study.sample_images()}
    return [
        {"id": image["id"], "source": image.get("source"), "licence": image["licence"]}
        for image in (study.ground_truth or {}).get("images", [])
        if image["id"] in shown and isinstance(image.get("licence"), dict)
    ]


def credits(study: StudyResults, known: list[dict[str, Any]]) -> Marked:
    """Paragraphs on the photographs that are shown; "" where nothing is known of their licences.

    known: see `licensed`.
    """
    if not known:
        return Marked("")
    texts = [
        "Only photographs are shown whose licences allow it. They were changed: resized or cropped, in some pictures "
        "in grey, with outlines drawn in. The licences of this project's code and text do not cover them."
    ]
    by_licence: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for image in known:
        by_licence[str(image["licence"].get("name", "")), str(image["licence"].get("url", ""))].append(image)
    if any(SHARE_ALIKE in url for _, url in by_licence):
        texts.append(
            "Pictures made of photographs under a ShareAlike licence, alone or beside others, are under that licence "
            "too."
        )
    from_flickr = [image for image in known if FLICKR in str(image.get("source"))]
    if from_flickr:
        texts.append(
            "The annotations do not name the photographers: Flickr does, on the page "
            "`https://www.flickr.com/photo.gne?id=NUMBER` of the photograph, whose NUMBER its file's name below begins "
            "with."
        )
    if from_flickr and str(study.data.get("name", "")).startswith("coco"):
        texts.append(COCO)
    lines = []
    for (name, url), images in sorted(by_licence.items()):
        listed = "; ".join(f"{escape(image['id'])} {code(image.get('source') or 'no address')}" for image in images)
        address = f" ({code(url)})" if url else ""
        lines.append(f"- {escape(name)}{address}, {plural(len(images), 'photograph')}: {listed}.")
    return Marked(" ".join(texts) + "\n\n" + "\n".join(lines))
