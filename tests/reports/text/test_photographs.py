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
    known[0]["used"] = ["line 1 of the samples", "image 2 of the slider"]
    first, *lines = photographs.credits(study([], data={"name": "coco"}), known).split("\n")
    assert "resized or cropped, in some pictures in grey, with outlines drawn in" in first
    assert "under a ShareAlike licence, alone or beside others, are under that licence too" in first
    assert "Flickr does, on the page to which a number leads" in first and "COCO Consortium" in first
    page = "https://www.flickr.com/photo.gne?id="
    assert lines == [
        "",
        "- [CC BY 2.0](https://creativecommons.org/licenses/by/2.0/), 2 photographs: "
        f"[100]({page}100) (line 1 of the samples, image 2 of the slider); [300]({page}300).",
        f"- [CC BY-SA 2.0](https://creativecommons.org/licenses/by-sa/2.0/), 1 photograph: [200]({page}200).",
    ]
    assert "COCO" not in photographs.credits(study([], data={"name": "holidays"}), known)
    assert "ShareAlike" not in photographs.credits(study(), known[:1])


def test_each_photograph_is_said_to_be_in_the_pictures_in_which_it_is(outputs):
    used = photographs.uses(samples=(5, 1), slider=(1,), closeups=(1, 5, 1), why=5)
    assert used == {
        5: ["the object on the grid", "line 1 of the samples", "line 2 of the close-ups"],
        1: ["line 2 of the samples", "image 1 of the slider", "lines 1 and 3 of the close-ups"],
    }
    assert photographs.uses() == {}
    shown = read_study(outputs, "roialign")
    for image in shown.ground_truth["images"]:
        image |= {"licence": BY, "source": FLICKR.format(image["id"])}
    assert {item["id"]: item["used"] for item in photographs.licensed(shown, used)} == used
    assert [item["id"] for item in photographs.licensed(shown, {5: used[5]})] == [5]
    shown.record.exhibits.append("proposals")  # which may show any of the sample images
    assert [item["id"] for item in photographs.licensed(shown, {5: used[5]})] == [1, 5]


def test_only_addresses_of_flickr_become_links():
    odd = [
        "http://farm1.staticflickr.com.evil.org/42/1_a_z.jpg",
        "http://evil.org/staticflickr.com/1_a_z.jpg",
        "[x](y)",
    ]
    known = [{"id": 1, "source": source, "licence": {"name": "CC BY", "url": "http://evil.org"}} for source in odd]
    assert "](" not in photographs.credits(study(), known).replace("\\[x\\](y)", "").replace("`[x](y)`", "")
