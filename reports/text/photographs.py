"""What a report has to say where it shows photographs: who made them, under which licences, and what was changed."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from reports.load import StudyResults
from reports.text.labels import and_list, plural
from reports.text.markup import Marked, code, escape

SHARE_ALIKE = "/by-sa/"
FLICKR = re.compile(
    r"https?://(?:[a-z0-9-]+\.)*(?:static)?flickr\.com/(?:[a-z0-9]+/)*(\d+)_[a-z0-9_]+\.(?:jpg|png|gif)"
)
"""The address of a picture's file; the number is the photograph's."""
CREATIVE_COMMONS = re.compile(r"https?://creativecommons\.org/licenses/(by(?:-nc)?(?:-sa|-nd)?)/(\d\.\d)/?")
COCO = (
    "Their outlines and boxes are annotations of the COCO Consortium (`https://cocodataset.org`), under "
    "[CC BY 4.0](https://creativecommons.org/licenses/by/4.0/)."
)


def uses(
    samples: Sequence[int] = (), slider: Sequence[int] = (), closeups: Sequence[int] = (), why: int | None = None
) -> dict[int, list[str]]:
    """Id of a photograph -> the pictures in which it is used, by what a reader sees: "image 3 of the slider"."""
    found: dict[int, list[str]] = defaultdict(list)
    if why is not None:
        found[why].append("the object on the grid")
    for ids, noun, of in ((samples, "line", "samples"), (slider, "image", "slider"), (closeups, "line", "close-ups")):
        for image_id in dict.fromkeys(ids):
            places = [str(place) for place, other in enumerate(ids, 1) if other == image_id]
            found[image_id].append(f"{noun}{'s' if len(places) > 1 else ''} {and_list(places)} of the {of}")
    return dict(found)


def licensed(study: StudyResults, used: Mapping[int, Sequence[str]] | None = None) -> list[dict[str, Any]]:
    """The photographs that a report shows, as far as their licences are known: id, source, licence and use of each.

    used: see `uses`. Where no exhibit can show others, only these are named.
    """
    shown = {image_id for image_id, _ in study.sample_images()}
    if used and not study.record.exhibits:
        shown &= used.keys()
    return [
        {
            "id": image["id"],
            "source": image.get("source"),
            "licence": image["licence"],
            "used": list((used or {}).get(image["id"], [])),
        }
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
    from_flickr = [image for image in known if FLICKR.fullmatch(str(image.get("source")))]
    if from_flickr:
        texts.append("The annotations do not name the photographers: Flickr does, on the page to which a number leads.")
    if from_flickr and str(study.data.get("name", "")).startswith("coco"):
        texts.append(COCO)
    lines = [
        f"- {_licence(name, url)}, {plural(len(images), 'photograph')}: {'; '.join(map(_source, images))}."
        for (name, url), images in sorted(by_licence.items())
    ]
    return Marked(" ".join(texts) + "\n\n" + "\n".join(lines))


def _licence(name: str, url: str) -> str:
    """ "CC BY 2.0" as a link; another licence by its own name, with its address."""
    known = CREATIVE_COMMONS.fullmatch(url)
    if known is None:
        return f"{escape(name)} ({code(url)})" if url else escape(name)
    return f"[CC {known[1].upper()} {known[2]}](https://creativecommons.org/licenses/{known[1]}/{known[2]}/)"


def _source(image: dict[str, Any]) -> str:
    """Where a photograph comes from, as a link if it is from Flickr, and in which pictures it is used."""
    source = str(image.get("source") or "no address")
    number, used = FLICKR.fullmatch(source), ", ".join(map(escape, image.get("used", [])))
    if number is None:
        named = f"{escape(image['id'])} {code(source)}"
    else:
        named = f"[{number[1]}](https://www.flickr.com/photo.gne?id={number[1]})"
    return f"{named} ({used})" if used else named
