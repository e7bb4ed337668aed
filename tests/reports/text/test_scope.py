"""How large a study is, and what it cannot say."""

import dataclasses

from ablations.records.schema import Hypothesis
from reports.analysis import analyse
from reports.stats.bootstrap import ImageNoise
from reports.stats.paired import detectable_effect, seeds_for
from reports.text import scope
from reports.text.labels import number
from tests.reports.text.hand_made import run, study


def test_the_size_of_the_experiment():
    images = study().evaluated
    assert scope.setting(study()) == (
        f"4 arms x 2 seeds, 400 training steps each, on 2,000 training and 300 {images} (shapes)."
    )
    longer = study([run("pool16", 0, steps=1200), run("align16", 0)])
    assert "400 or 1,200 training steps each" in scope.setting(longer)
    assert scope.setting(study([], data={}, seeds=[0])) == "4 arms x 1 seed."


def test_the_limits_name_what_all_seeds_share():
    shared = "All seeds of an arm share the same `backbone` and `rpn`, trained once"
    assert any(text.startswith(shared) for text in scope.limits(analyse(study(), resamples=0)))
    own = study([dataclasses.replace(item, stages={"rpn": f"{key}"}) for key, item in study().runs.items()])
    assert not any("share the same" in text for text in scope.limits(analyse(own, resamples=0)))


def test_the_limits_speak_of_synthetic_images_where_they_are():
    synthetic = "The images are synthetic and small"
    assert any(text.startswith(synthetic) for text in scope.limits(analyse(study(), resamples=0)))
    real = study([run("pool16", 0, data={"name": "cells"})], data={"name": "cells"})
    assert not any(text.startswith(synthetic) for text in scope.limits(analyse(real, resamples=0)))


def test_what_is_said_of_a_stage_that_all_seeds_share_is_true_of_it():
    """Data are not trained, and the backbone of ImageNet was trained by others."""
    stages = {"backbone": "one", "data": "two"}
    runs = [dataclasses.replace(item, stages=stages) for item in study().runs.values()]
    of_others = study(runs, config={"model": {"weights": "imagenet"}})
    texts = " ".join(scope.limits(analyse(of_others, resamples=0)))
    assert "share the same `backbone`, pretrained on ImageNet by others" in texts and "trained once" not in texts
    texts = " ".join(scope.limits(analyse(study(runs, config={"model": {"weights": "shipped"}}), resamples=0)))
    assert "share the same `backbone`, trained once" in texts and "`data`" not in texts


def test_the_limits_of_photographs_are_those_of_the_settings():
    model = {"weights": "imagenet", "freeze": "all", "box_hidden": 128, "mask_channels": 64}
    data = {"name": "coco", "split": "val", "num_train": 142, "num_val": 103, "classes": ["person"]}
    config = {"model": model, "split": "test", "rpn": "jitter", "jitter": {"share": 0.1, "copies": 8}}
    photos = study([run("pool16", 0, data=data, config=config)], data=data, config=config)
    texts = " ".join(scope.limits(analyse(photos, resamples=0)))
    assert "one class, “person”." in texts and "the same 142 images" in texts and "frozen" in texts
    assert "128 units" in texts and "64 channels" in texts and "same proposals" in texts
    assert "142 training and 103 validation images, on which no setting was chosen (coco)." in scope.setting(photos)
    chosen_on = dataclasses.replace(photos.record, config={})
    assert "no setting was chosen" not in scope.setting(dataclasses.replace(photos, record=chosen_on))
    plain = " ".join(scope.limits(analyse(study(), resamples=0)))
    assert not any(words in plain for words in ("one class", "frozen", "light", "proposals"))


def test_where_values_come_from():
    drawn, photos = study(), study(name="photos", config={"data": {"kind": "coco"}})
    assert scope.origin([drawn]) == "Our values come from synthetic images and small networks, the paper's from COCO"
    assert scope.origin([drawn, photos]) == (
        "Our values come from synthetic images and small networks, except for `photos`, on photographs and with a "
        "ResNet, the paper's from COCO"
    )


def test_the_smallest_difference_that_can_be_found():
    """The claims' standard deviations: 1.41 at stride 16, 0 at 32, 1.41 of the interaction, 0 of the difference."""
    spread = 2**0.5
    (text,) = [text for text in scope.limits(analyse(study(), resamples=0)) if "usual spread" in text]
    assert text.startswith(
        f"With the usual spread of a claim here (sd 1.4 points), 2 seeds find a true difference of "
        f"{number(detectable_effect(spread, 2))} points in 80 % of the cases."
    )
    assert text.endswith(
        f" Smaller ones need more: {seeds_for(1.0, spread)} seeds for one point, more than 50 for half a point."
    )


def test_larger_differences_are_not_said_to_need_more_seeds():
    """With a standard deviation of 0.4 and 10 seeds: both half a point and a point are larger than what is found."""
    assert seeds_for(0.5, 0.4) == 8 and seeds_for(1.0, 0.4) == 4
    assert scope._other_counts(0.4, 10) == " Larger ones need fewer: 8 seeds for half a point, 4 for one point."
    assert scope._other_counts(0.4, 5) == (
        " Larger ones need fewer: 4 seeds for one point. Smaller ones need more: 8 seeds for half a point."
    )
    assert scope._other_counts(0.4, 4) == " Smaller ones need more: 8 seeds for half a point."


def test_the_limits_tell_intervals_over_seeds_from_those_over_images():
    analysis = analyse(study(), resamples=0)
    assert f"They do not cover other {study().evaluated}, other data" in scope.limits(analysis)[0]
    analysis.noise["mask-ap-16"] = ImageNoise(1.0, 0.0, 2.0, 300, 2)
    text = scope.limits(analysis)[0]
    assert text.startswith("The intervals over seeds cover") and 'those called "other images" do' in text


def about_large(all_sizes: dict[str, float], strides: tuple[int, ...] = (16, 32)) -> str:
    """What is said where claims are about large objects: RoIAlign is 2 points ahead on these at both strides."""
    name, large = "true_boxes.IoU_96_px_and_more", {"align16": 62.0, "pool16": 60.0, "align32": 62.0, "pool32": 60.0}
    runs = [
        dataclasses.replace(item, metrics={"true_boxes": {"IoU": all_sizes[arm], "IoU_96_px_and_more": large[arm]}})
        for (arm, _), item in study().runs.items()
    ]
    claims = [Hypothesis(f"c{stride}", "", name, {f"align{stride}": 1.0, f"pool{stride}": -1.0}) for stride in strides]
    return scope.all_sizes(analyse(study(runs, hypotheses=claims), resamples=0))


def test_claims_about_large_objects_stand_beside_all_sizes():
    text = about_large({"align16": 50.0, "pool16": 49.5, "align32": 40.0, "pool32": 41.0})
    assert "RoIAlign − RoIPool, stride 16: +2.0 points of mask IoU on true boxes on these, +0.5 over objects of" in text
    assert text.endswith("Of 2 differences, over all objects, 1 has the opposite sign (RoIAlign − RoIPool, stride 32).")
    gone = about_large({"align16": 50.0, "pool16": 50.02, "align32": 40.0, "pool32": 41.0})
    assert "stride 16: +2.0 points of mask IoU on true boxes on these, 0.0 over objects" in gone
    assert gone.endswith(
        "Of 2 differences, over all objects, 1 has the opposite sign (RoIAlign − RoIPool, stride 32) and 1 vanishes "
        "(RoIAlign − RoIPool, stride 16)."
    )
    single = about_large({"align16": 50.0, "pool16": 50.5, "align32": 40.0, "pool32": 41.0}, strides=(16,))
    assert single.endswith("Over all objects this difference has the opposite sign.")
    same = about_large({"align16": 50.0, "pool16": 49.5, "align32": 40.0, "pool32": 39.0})
    assert same.endswith("No claimed difference has another sign over all objects than on large ones.")
    assert scope.all_sizes(analyse(study(), resamples=0)) == ""


def test_the_smallest_difference_over_images_is_told_where_it_is_known():
    analysis = analyse(study(), resamples=0)
    assert not any("sample of images" in text for text in scope.limits(analysis))
    for name, error in {"mask-ap-16": 1.0, "mask-ap-32": 2.0, "interaction": 3.0}.items():
        analysis.noise[name] = ImageNoise(1.0, 0.0, 2.0, 300, 2, error=error)
    (text,) = [text for text in scope.limits(analysis) if "sample of images" in text]
    assert "a true difference of 5.6 points is found in 80 % of the cases (2.8 to 8.4, depending on the claim)" in text


def test_one_seed_has_no_spread():
    single = study([run(arm, 0) for arm in ("pool16", "align16")], seeds=[0])
    assert not any("usual spread" in text for text in scope.limits(analyse(single, resamples=0)))
