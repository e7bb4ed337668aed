"""Where photographs are shown, their sources and licences stand beside them."""

from reports.load import read_study
from reports.text import photographs
from tests.reports.text.hand_made import study

BY = {"name": "Attribution License", "url": "http://creativecommons.org/licenses/by/2.0/"}
SHARE_ALIKE = {"name": "Attribution-ShareAlike License", "url": "http://creativecommons.org/licenses/by-sa/2.0/"}
FLICKR = "http://farm1.staticflickr.com/42/{}_5e4d_z.jpg"


def test_photographs_are_shown_with_their_origin_and_licence(outputs):
    shown = read_study(outputs, "roialign")
    assert photographs.credits(shown, photographs.licensed(shown)) == ""  # of synthetic images nothing is known
    image_id, _ = shown.sample_images()[0]
    for image in shown.ground_truth["images"]:
        if image["id"] == image_id:
            image |= {"licence": {"name": "Attribution <b>", "url": "x"}, "source": "http://example.org/`1"}
        else:
            image["licence"] = "odd"
    text = photographs.credits(shown, photographs.licensed(shown))
    assert f"{image_id} http://example.org/" in text and "Attribution &lt;b&gt; (`x`), 1 photograph: " in text
    assert "Flickr" not in text and "COCO" not in text and "ShareAlike" not in text


def test_each_licence_has_its_address_and_what_it_asks_for():
    known = [
        {"id": 1, "source": FLICKR.format(100), "licence": BY},
        {"id": 2, "source": FLICKR.format(200), "licence": SHARE_ALIKE},
        {"id": 3, "source": FLICKR.format(300), "licence": BY},
    ]
    first, *lines = photographs.credits(study([], data={"name": "coco"}), known).split("\n")
    assert "resized or cropped, in some pictures in grey, with outlines drawn in" in first
    assert "under a ShareAlike licence, alone or beside others, are under that licence too" in first
    assert "photo.gne?id=NUMBER" in first and "COCO Consortium" in first and "licenses/by/4.0/" in first
    assert lines == [
        "",
        "- Attribution License (`http://creativecommons.org/licenses/by/2.0/`), 2 photographs: "
        f"1 `{FLICKR.format(100)}`; 3 `{FLICKR.format(300)}`.",
        "- Attribution-ShareAlike License (`http://creativecommons.org/licenses/by-sa/2.0/`), 1 photograph: "
        f"2 `{FLICKR.format(200)}`.",
    ]
    assert "COCO" not in photographs.credits(study([], data={"name": "holidays"}), known)
    assert "ShareAlike" not in photographs.credits(study(), known[:1])
