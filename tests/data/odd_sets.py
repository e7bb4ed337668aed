"""Small sets in COCO format with one oddity each, as tools and people make them: what is said and what comes of it."""

import numpy as np

from tests.data.coco_sets import (
    HEIGHT,
    WIDTH,
    Odd,
    annotation_ids,
    box,
    category_ids,
    encoded,
    every,
    first,
    image_ids,
    many_objects,
    mask_of,
    named,
    polygon,
    runs,
    unit,
    without,
)

SEEN_BY_NO_PIXEL = "no pixel of its mask is in the image"
XYXY = "the box reads like x1, y1, x2, y2"

ANNOTATION_IDS = {
    "from 0": Odd(annotation_ids([0, 1, 2, 3])),
    "negative": Odd(annotation_ids([-3, -2, -1, 0])),
    "float": Odd(annotation_ids([0.0, 1.0, 1.5, 2.5])),
    "text": Odd(annotation_ids(["a", "", "0", "b"])),
    "20 digits": Odd(annotation_ids([10**20, 10**20 + 1, 2**63, 2**64])),
    "10^400": Odd(annotation_ids([10**400, 1, 2, 3])),
    "mixed": Odd(annotation_ids([0, "0", 0.5, None])),
    "lists and flags": Odd(annotation_ids([[0], {"a": 1}, True, False])),
    "infinite": Odd(annotation_ids([float("inf"), float("nan"), 1, 2])),
    "missing": Odd(without("id")),
    "lone surrogate": Odd(annotation_ids(["\ud800", 1, 2, 3])),
    "twice": Odd(annotation_ids([7, 7, 8, 8.0]), 2, "its id was used before"),
}
IMAGE_IDS = {
    "from 0": Odd(image_ids(0, 1)),
    "negative": Odd(image_ids(-1, -2)),
    "float": Odd(image_ids(1.0, 2.0)),
    "float for int": Odd(image_ids(1, 2, refer=(1.0, 2.0))),
    "half": Odd(image_ids(0.5, 1.5)),
    "text": Odd(image_ids("b", "a")),
    "digits as text": Odd(image_ids("000000000139", "000000000285")),
    "text for int": Odd(image_ids(1, 2, refer=("1", "2"))),
    "int for text": Odd(image_ids("1", "2", refer=(1, 2))),
    "mixed": Odd(image_ids(1, "a")),
    "1 and text 1": Odd(image_ids(1, "1")),
    "beyond int64": Odd(image_ids(2**63, 20190521134512345678)),
    "within int64": Odd(image_ids(2**63 - 1, -(2**63))),
    "beyond double": Odd(image_ids(2**53, 2**53 + 1)),
    "10^30": Odd(image_ids(10**30, 10**30 + 1)),
    "10^400": Odd(image_ids(10**400, 1)),
    "slash": Odd(image_ids("a/../../b", "/etc")),
    "list": Odd(image_ids([1], [2]), 0, "images[0]: expected a number or a text as id, got [1]"),
    "null": Odd(image_ids(None, 2), 0, "images[0]: expected a number or a text as id, got None"),
    "true": Odd(image_ids(True, 2), 0, "images[0]: expected a number or a text as id, got True"),
    "nan": Odd(image_ids(float("nan"), 2), 0, "images[0]: expected a number or a text as id, got nan"),
    "twice": Odd(image_ids(1, 1.0), 0, "expected each id once, got 1 twice"),
    "missing": Odd(without("id", kind="images"), 0, "images[0]: expected id"),
    "others": Odd(image_ids(1, 2, refer=(3, 4)), 0, "no object can be used"),
    "unhashable": Odd(first(image_id=[1]), 3, "unknown image [1]"),
}
CATEGORY_IDS = {
    "from 0": Odd(category_ids(0, 1)),
    "float": Odd(category_ids(1.0, 2.0)),
    "text": Odd(category_ids("x", "y")),
    "mixed": Odd(category_ids(3, "a")),
    "mixed numbers": Odd(category_ids(3.5, 10**30)),
    "10^400": Odd(category_ids(10**400, 2.5)),
    "text for int": Odd(category_ids(1, 2, refer=("1", "2"))),
    "true": Odd(category_ids(True, 2), 0, "categories[0]: expected a number or a text as id, got True"),
    "null": Odd(first(category_id=None), 3, "unknown category None"),
    "unhashable": Odd(first(category_id={"id": 1}), 3, "unknown category {'id': 1}"),
}
CLASS_NAMES = {
    "<unk>": Odd(first("categories", name="<unk>")),
    "number": Odd(first("categories", name=7)),
    "Farsi": Odd(first("categories", name="\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645")),
    "twice": Odd(every("categories", name="cat"), 4, "its name 'cat' is that of category 1 too"),
    "null": Odd(first("categories", name=None), 0, "category 1: expected a name, got None"),
    "empty": Odd(first("categories", name=" "), 0, "category 1: expected a name, got ' '"),
    "twice except for capitals": Odd(first("categories", name="Dog "), 4, "'Dog ' except for blanks and capitals"),
    "invisible": Odd(first("categories", name="\u200d"), 0, "category 1: expected a name, got '\\u200d'"),
    "list": Odd(first("categories", name=["cat"]), 0, "category 1: expected a name, got ['cat']"),
    "line break": Odd(first("categories", name="a\nb"), 0, "category 1: expected a name"),
    "lone surrogate": Odd(first("categories", name="\ud800"), 0, "category 1: expected a name"),
    "missing": Odd(without("name", kind="categories"), 0, "categories[0]: expected name"),
    "none": Odd(lambda content: content.update(categories=[]), 0, "at least one entry under 'categories'"),
}
NO_PIXEL = {
    "collinear": Odd(first(segmentation=[[4, 4, 10, 10, 20, 20]]), 3, f"{SEEN_BY_NO_PIXEL}; the mask is thinner"),
    "repeated point": Odd(first(segmentation=[[4, 4] * 4]), 3, SEEN_BY_NO_PIXEL),
    "under half a pixel": Odd(first(segmentation=[polygon(4.1, 4.1, 0.3, 0.3)]), 3, SEEN_BY_NO_PIXEL),
    "sliver": Odd(first(segmentation=[[4, 4.1, 20, 4.2, 20, 4.3, 4, 4.2]]), 3, SEEN_BY_NO_PIXEL),
    "ring twice": Odd(first(segmentation=[polygon(4, 4, 16, 12) * 2]), 3, SEEN_BY_NO_PIXEL),
    "triangle twice": Odd(first(segmentation=[[4, 4, 20, 4, 4, 16] * 2]), 3, SEEN_BY_NO_PIXEL),
    "right of the image": Odd(first(segmentation=[polygon(50, 4, 16, 12)]), 3, "the mask is outside the image"),
    "left of the image": Odd(first(segmentation=[polygon(-20, 4, 16, 12)]), 3, "the mask is outside the image"),
    "below the image": Odd(first(segmentation=[polygon(4, 34, 16, 12)]), 3, "the mask is outside the image"),
    "RLE of zeros": Odd(first(segmentation={"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}), 3, "no pixel"),
    "RLE of empty runs": Odd(
        first(segmentation={"size": [HEIGHT, WIDTH], "counts": [1000, 0, HEIGHT * WIDTH - 1000]}), 3, "no pixel"
    ),
    "compressed zeros": Odd(first(segmentation=encoded(np.zeros((HEIGHT, WIDTH)))), 3, "no pixel of its mask is set"),
    "crowd": Odd(first(iscrowd=1, segmentation=[[4, 4] * 4]), 3, SEEN_BY_NO_PIXEL),
    "coordinates from 0 to 1": Odd(every(segmentation=lambda entry: [unit(entry)]), 0, "coordinates from 0 to 1"),
    "most from 0 to 1": Odd(
        lambda content: every(segmentation=lambda entry: [unit(entry)])({"annotations": content["annotations"][:3]}),
        1,
        "3 x coordinates from 0 to 1: multiply them by the image's width and height",
    ),
    "one polygon of two": Odd(first(segmentation=[[4, 4] * 4, polygon(4, 4, 16, 12)])),
    "partly outside": Odd(first(segmentation=[polygon(-8, -8, 28, 24)], area=None)),
}
FLAGS = {
    **{f"{flag!r}": Odd(every(iscrowd=flag)) for flag in (0, False, 0.0, None, "0", "false", "False", " 0 ", "no")},
    "missing": Odd(without("iscrowd")),
    **{f"{flag!r} once": Odd(first(iscrowd=flag), 3) for flag in (1, True, 1.0, "1", "true", "TRUE")},
    **{
        f"{flag!r:.20}": Odd(first(iscrowd=flag), 3, f"expected iscrowd 0 or 1, got {flag!r:.20}")
        for flag in ([0], {}, 2, -1, "maybe", "", 0.5, float("nan"), 10**400)
    },
    **{f"all {flag!r}": Odd(every(iscrowd=flag), 0, "all 4 objects are crowd regions") for flag in (1, True, "1")},
    "all [0]": Odd(every(iscrowd=[0]), 0, "no object can be used"),
}
AREAS = {
    **{
        f"{area!r:.20}": Odd(first(area=area), 4, "expected the area of its mask, 192 pixels, got")
        for area in (-1, 0, 1e12, 10**400, "192", [192], True, float("nan"), float("inf"), 0.02, 5000)
    },
    "all -1": Odd(every(area=-1), 4, "4 x annotation recomputed"),
    "missing": Odd(without("area")),
    "null": Odd(every(area=None)),
    "nearly right": Odd(first(area=180.5)),
}
BOXES_ODD = {
    "x1, y1, x2, y2": Odd(box(lambda x, y, w, h: [x, y, x + w, y + h]), 4, XYXY),
    "y, x, h, w": Odd(box(lambda x, y, w, h: [y, x, h, w]), 4, "the box reads like y, x, height, width"),
    "y1, x1, y2, x2": Odd(box(lambda x, y, w, h: [y, x, y + h, x + w]), 4, "the box reads like y1, x1, y2, x2"),
    "centre": Odd(box(lambda x, y, w, h: [x + w / 2, y + h / 2, w, h]), 4, "centre x, centre y, width, height"),
    "from below": Odd(box(lambda x, y, w, h: [x, HEIGHT - y - h, w, h]), 4, "y counted from the lower border"),
    "from the right": Odd(box(lambda x, y, w, h: [WIDTH - x - w, y, w, h]), 4, "x counted from the right border"),
    "shares": Odd(
        box(lambda x, y, w, h: [x / WIDTH, y / HEIGHT, w / WIDTH, h / HEIGHT]), 4, "shares of the image's sides"
    ),
    "half size": Odd(box(lambda x, y, w, h: [x / 2, y / 2, w / 2, h / 2]), 4, "by a factor of about 0.5"),
    "moved": Odd(first(bbox=[24, 4, 16, 12]), 4, "they count from different origins"),
    "elsewhere": Odd(first(bbox=[30, 20, 4, 10]), 4, "contradict each other"),
    "mask of another place": Odd(first(segmentation=[polygon(30, 20, 4, 10)], area=40), 4, "contradict each other"),
    "mask by rows": Odd(
        every(segmentation=lambda entry: {"size": [HEIGHT, WIDTH], "counts": runs(mask_of(entry).ravel())}, area=None),
        4,
        "the RLE reads like rows of pixels",
    ),
    "hidden in part": Odd(first(bbox=[4, 4, 20, 14])),
    "10^400": Odd(first(bbox=[10**400, 4, 16, 12]), 3, "expected a box of four numbers"),
    "width 10^400": Odd(first(bbox=[4, 4, 10**400, 12]), 3, "expected a box of four numbers"),
    "1e308": Odd(first(bbox=[4, 4, 1e308, 1e308]), 3, "expected a box of four numbers"),
    "text": Odd(first(bbox=["4", "4", "16", "12"]), 3, "expected a box of four numbers"),
    "nan": Odd(first(bbox=[4, 4, float("nan"), 12]), 3, "expected a box of four numbers"),
    "object": Odd(first(bbox={"x": 4}), 3, "expected a box of four numbers"),
    "missing": Odd(without("bbox"), 0, "expected a box of four numbers, got None"),
    "empty": Odd(first(bbox=[4, 4, 0, 0]), 3, "box without area"),
    "a thousandth": Odd(first(bbox=[4, 4, 1e-3, 12]), 3, "box without area"),
    "negative": Odd(first(bbox=[20, 16, -16, -12]), 3, "box without area"),
    "outside": Odd(first(bbox=[60, 4, 16, 12]), 3, "outside the image of 48 x 32"),
    "over the border": Odd(
        first(bbox=[30, 4, 25, 12], segmentation=[polygon(30, 4, 25, 12)], area=300), 4, "reaches out of the image"
    ),
}
SEGMENTATIONS = {
    "flat list": Odd(every(segmentation=lambda e: e["segmentation"][0]), 4, "4 x annotation read as one polygon"),
    "points": Odd(
        every(segmentation=lambda e: np.reshape(e["segmentation"][0], (-1, 2)).tolist()), 4, "got a list of points"
    ),
    "lists of points": Odd(
        every(segmentation=lambda e: [np.reshape(e["segmentation"][0], (-1, 2)).tolist()]), 4, "got lists of points"
    ),
    "box": Odd(every(segmentation=lambda e: e["bbox"]), 0, "three points or more, got 4 numbers"),
    "empty": Odd(every(segmentation=[]), 0, "4 x training needs masks"),
    "missing": Odd(without("segmentation"), 0, "4 x training needs masks"),
    "empty polygon": Odd(first(segmentation=[[]]), 3, "three points or more, got 0 numbers"),
    "odd count": Odd(first(segmentation=[[4, 4, 20, 4, 20, 16, 4]]), 3, "three points or more, got 7 numbers"),
    "text": Odd(first(segmentation="4 4 20 4"), 3, "expected polygons or an RLE"),
    "texts": Odd(first(segmentation=[["4", "4", "20", "4", "20", "16"]]), 3, "polygon of numbers in or near"),
    "far": Odd(first(segmentation=[[4, 4, 1e9, 4, 4, 16]]), 3, "polygon of numbers in or near the image"),
    "10^400": Odd(first(segmentation=[[4, 4, 10**400, 4, 4, 16]]), 3, "polygon of numbers in or near the image"),
    "nan": Odd(first(segmentation=[[4, 4, float("nan"), 4, 4, 16]]), 3, "polygon of numbers in or near the image"),
    "compressed": Odd(every(segmentation=lambda entry: encoded(mask_of(entry)))),
    "uncompressed": Odd(
        every(segmentation=lambda e: {"size": [HEIGHT, WIDTH], "counts": runs(mask_of(e).ravel(order="F"))})
    ),
    "float size": Odd(
        every(segmentation=lambda entry: {**encoded(mask_of(entry)), "size": [float(HEIGHT), float(WIDTH)]})
    ),
    "width and height": Odd(
        every(segmentation=lambda entry: {**encoded(mask_of(entry)), "size": [WIDTH, HEIGHT]}),
        0,
        "4 x the size reads like width, height; COCO's is height, width",
    ),
    "100,000 x 100,000": Odd(first(segmentation={"size": [100000] * 2, "counts": [0, 10**10]}), 3, "RLE of size"),
    "lone surrogate": Odd(first(segmentation={"size": [HEIGHT, WIDTH], "counts": "\ud800"}), 3, "does not decode"),
    "counts of 10^400": Odd(first(segmentation={"size": [HEIGHT, WIDTH], "counts": [10**400]}), 3, "expected an RLE"),
    "no counts": Odd(first(segmentation={"size": [HEIGHT, WIDTH]}), 3, "does not decode"),
}
IMAGES = {
    "backslash": Odd(named(lambda n: f"images\\{n}.png"), 4, "2 x image found under another name"),
    "%20 and the like": Odd(named(lambda n: f"%3{n}.png"), 4, "found under another name"),
    "folder in front": Odd(named(lambda n: f"data/train/{n}.png"), 4, "found under another name"),
    "upper case": Odd(named(lambda n: f"{n}.PNG"), 4, "found under another name"),
    "here": Odd(named(lambda n: f"./{n}.png")),
    "two for one": Odd(named(lambda n: f"{n}/1.png"), 0, "several names could mean 1.png"),
    "other ending": Odd(first("images", file_name="1.jpg"), 2, "there is 1.png"),
    "gone": Odd(first("images", file_name="3.png"), 2, "skipped with its objects"),
    "all gone": Odd(named(lambda n: f"x{n}.png"), 0, "is it their folder?"),
    "absolute": Odd(named(lambda n: f"/data/{n}.png"), 0, "expected a file name inside the image folder"),
    "drive": Odd(named(lambda n: f"C:\\data\\{n}.png"), 0, "expected a file name inside the image folder"),
    "above": Odd(named(lambda n: f"../train/{n}.png"), 0, "expected a file name inside the image folder"),
    "above in disguise": Odd(named(lambda n: f"%2e%2e/%2e%2e/etc/passwd{n}"), 0, "skipped with its objects"),
    "null byte": Odd(named(lambda n: f"{n}.png\0"), 0, "expected a file name"),
    "no name": Odd(named(lambda n: None), 0, "expected a file name"),
    "line break": Odd(first("images", file_name="1.png\n"), 2, "1.png\\n; there is 1.png (skipped"),
    "escape": Odd(first("images", file_name="\x1b[31m1.png"), 2, "\\x1b[31m1.png"),
    "long name": Odd(first("images", file_name="a" * 5000), 2, "skipped with its objects"),
    "lone surrogate": Odd(first("images", file_name="\ud800.png"), 2, "skipped with its objects"),
    "float sides": Odd(every("images", height=float(HEIGHT), width=float(WIDTH))),
    "text sides": Odd(every("images", height="32"), 0, "expected height and width in pixels"),
    "half sides": Odd(every("images", height=31.5), 0, "expected height and width in pixels"),
    "no sides": Odd(every("images", height=0), 0, "expected height and width in pixels"),
    "negative sides": Odd(every("images", height=-32, width=-48), 0, "expected height and width in pixels"),
    "true sides": Odd(every("images", height=True), 0, "expected height and width in pixels"),
    "100,000 x 100,000": Odd(every("images", height=100000, width=100000), 0, "expected height and width in pixels"),
    "10^400": Odd(every("images", height=10**400), 0, "expected height and width in pixels"),
    "150 objects": Odd(many_objects, 150, "148 objects; COCO's AP takes the best 100 detections"),
}
GROUPS = {
    "annotation ids": ANNOTATION_IDS,
    "image ids": IMAGE_IDS,
    "category ids": CATEGORY_IDS,
    "class names": CLASS_NAMES,
    "no pixel": NO_PIXEL,
    "iscrowd": FLAGS,
    "area": AREAS,
    "box": BOXES_ODD,
    "segmentation": SEGMENTATIONS,
    "image": IMAGES,
}
ODD_SETS = {f"{group}: {name}": odd for group, cases in GROUPS.items() for name, odd in cases.items()}
