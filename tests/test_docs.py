"""What the documentation names exists, and what it claims is what the records say."""

import ast
import importlib.util
import json
import re
from pathlib import Path

import pytest

from reports.text import transfer
from reports.web.pages import published
from tools import result_tables as tables

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "data/README.md", "ops/README.md")]
PAGES += [*sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "reports/gallery").glob("**/README.md"))]
OWN = [page for page in PAGES if page.parent in (ROOT, ROOT / "docs")]
GALLERY = ROOT / "reports/gallery"


def named(page):
    return str(page.relative_to(ROOT))


def text_of(page):
    return page.read_text(encoding="utf-8")


def anchors(page):
    """The names that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", text_of(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", text_of(page)) + re.findall(r'(?:src|href)="([^"]+)"', text_of(page))
    for link in links:
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{named(page)}: {link}"
        assert not anchor or anchor in anchors(target), f"{named(page)}: no heading for {link}"


@pytest.mark.parametrize("page", OWN, ids=named)
def test_make_targets_and_modules_exist(page):
    targets = set(re.findall(r"^([a-z][a-z-]*):", text_of(ROOT / "Makefile"), flags=re.MULTILINE))
    for target in re.findall(r"(?:^|`)make ([a-z][a-z-]+)(?=[ `\n])", text_of(page), flags=re.MULTILINE):
        assert target in targets, f"{named(page)}: make {target}"
    for module in re.findall(r"python -m ([a-z_.]+)", text_of(page)):
        assert importlib.util.find_spec(module.rstrip(".")), f"{named(page)}: python -m {module}"


def test_the_page_on_data_says_what_every_module_does():
    rows = [line.split("|")[1] for line in text_of(ROOT / "data/README.md").splitlines() if line.startswith("| `")]
    listed = sorted(name for row in rows for name in re.findall(r"`(\w+\.py)`", row))
    assert listed == sorted(path.name for path in (ROOT / "data").glob("*.py") if path.name != "__init__.py")


@pytest.mark.parametrize("page", OWN, ids=named)
def test_files_in_backticks_exist(page):
    for path in re.findall(r"`((?:[\w.]+/)+[\w.]*)`", text_of(page)):
        generated = path.startswith(("outputs/", "reports/out/", "site/", "stages/", "datasets/")) or "<" in path
        assert generated or (ROOT / path).exists(), f"{named(page)}: {path}"


def test_options_in_the_table_of_settings_exist():
    for row in re.findall(r"^\| `(\w+)` \| (.+?) \|", text_of(ROOT / "docs/running.md"), flags=re.MULTILINE):
        group = ROOT / "conf" / row[0]
        if group.is_dir():
            for option in re.findall(r"`(\w+)`", re.sub(r"\([^)]*\)", "", row[1])):
                assert (group / f"{option}.yaml").exists(), f"{row[0]}={option}"


def test_every_step_of_the_walk_is_defined_in_the_file_named():
    """Rows of docs/architecture.md such as | `models/build.py` | `build_detector` | ... |"""
    steps = re.findall(
        r"^\| `([\w/]+\.(?:py|c))` \| `([\w.]+)` \|", text_of(ROOT / "docs/architecture.md"), re.MULTILINE
    )
    assert len(steps) > 10
    for path, name in steps:
        text = text_of(ROOT / path)
        if path.endswith(".c"):
            assert re.search(rf"\b{name}\(", text), f"{path}: {name}"
            continue
        nodes = ast.parse(text).body
        for part in name.split("."):
            matching = [node for node in nodes if part in defined_by(node)]
            assert matching, f"{path}: {name}"
            nodes = getattr(matching[0], "body", [])


def defined_by(node):
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return {target.id for target in targets if isinstance(target, ast.Name)}
    return {getattr(node, "name", None)}


def test_the_table_of_results_has_all_studies_of_the_gallery():
    named = {match["study"] for match in tables.ROW.finditer(text_of(ROOT / "docs/results.md"))}
    assert named == {study for study, _ in tables.recorded()} - {"real"}


@pytest.mark.parametrize("page", ["README.md", "docs/results.md"])
def test_the_tables_of_results_say_what_the_records_say(page):
    """`python -m tools.result_tables` would change nothing."""
    text = text_of(ROOT / page)
    update = tables.update_readme if page == "README.md" else tables.update_results
    assert update(text, tables.recorded()) == text


def test_tables_of_results_with_other_numbers_are_written_anew():
    text = text_of(ROOT / "docs/results.md")
    rows = {key: row | {"mean": "12.345", "verdict": "undecided"} for key, row in tables.recorded().items()}
    updated = tables.update_results(text, rows)
    assert updated.count("| +12.3 (") == len(tables.ROW.findall(text)) > 50
    assert tables.update_results(updated, tables.recorded()) == text
    readme = text_of(ROOT / "README.md")
    assert tables.update_readme(readme, rows).count("**+12.3** | ") == len(tables.IN_README) == 3


@pytest.mark.parametrize("page", ["README.md", "docs/results.md"])
def test_only_rows_about_photographs_are_written_anew_from_their_table(page):
    text, table = text_of(ROOT / page), transfer.table(published(GALLERY))
    assert tables.update_transfer(text, table) == text
    changed = tables.update_transfer(text, table.replace("holds", "is other"))
    assert "**is other**" in changed and changed.replace("**is other**", "**holds**") == text


def test_an_interval_shows_on_which_side_of_it_the_papers_value_lies():
    assert tables.interval({"low": "3.46", "high": "5.449", "paper": "5.5"}) == ("+3.5", "+5.4")
    assert tables.interval({"low": "3.446", "high": "5.452", "paper": "5.5"}) == ("+3.45", "+5.45")
    assert tables.interval({"low": "-0.04", "high": "1", "paper": ""}) == ("−0.0", "+1.0")


def test_what_holds_on_photographs_is_what_the_records_say():
    studies = published(GALLERY)
    rows = transfer.table(studies).splitlines()
    assert "\n".join(rows) in text_of(ROOT / "docs/results.md")
    assert transfer.floors(studies) in text_of(ROOT / "docs/results.md")
    lines = text_of(ROOT / "README.md").partition("## And on photographs?")[2].partition("## ")[0].splitlines()
    listed = [line for line in lines if line.startswith("|")]
    assert len(listed) > 2 and set(listed) <= set(rows)


def test_the_readme_is_short():
    assert len(text_of(ROOT / "README.md").splitlines()) <= 150


def test_the_benchmarks_page_says_what_the_records_say():
    text = text_of(ROOT / "docs/benchmarks.md")
    names = ("step", "resnet", "study", "arithmetic")
    step, resnet, study, arithmetic = records = [json.loads(text_of(GALLERY / f"bench/{name}.json")) for name in names]
    assert {record["provenance"]["git"]["commit"][:7] for record in records} == {re.search(r"at commit (\w+)", text)[1]}
    assert f"| {step['ratio']['training step']:.1f} times as fast |" in text
    assert f"| {step['ratio']['inference']:.2f} times as fast |" in text
    assert f"| {100 * arithmetic['ratio']:.0f} % of their rate |" in text
    shares = re.findall(r"(\d+) %", text.partition("a profile finds")[2].partition(".")[0])
    assert shares == [f"{100 * share:.0f}" for share in arithmetic["parts"].values()]
    assert f"{100 * step['fraction_of_matrix_rate']:.0f} % of the machine's" in text
    for phase in ("training step", "inference"):
        assert f"| {resnet['ratio'][phase]['wall']:.2f} times as fast |" in text
    for baseline in ("ratio_to_one_thread", "ratio_to_two_threads"):
        assert f"| {study[baseline]:.1f} times as fast |" in text
    assert f"| {100 * study['checkpoints']['share_of_time']:.2f} % |" in text


def test_the_benchmarks_of_another_machine_are_those_of_its_records():
    text = " ".join(text_of(ROOT / "docs/benchmarks.md").split())
    names = ("step", "resnet", "arithmetic")
    records = [json.loads(text_of(GALLERY / f"bench/without-amx/{name}.json")) for name in names]
    (step, resnet, arithmetic), (commit,) = records, {item["provenance"]["git"]["commit"][:7] for item in records}
    seconds, wall = arithmetic["seconds"], {phase: kinds["wall"] for phase, kinds in resnet["ratio"].items()}
    assert f"at commit {commit}: a study's step takes {1000 * seconds['step']:.0f} ms and" in text
    assert (
        f"reaches {100 * arithmetic['ratio']:.0f} % of the rate of its products alone ({1000 * seconds['alone']:.0f} ms"
        in text
    )
    assert (
        f"trains {step['ratio']['training step']:.2f} times and detects {step['ratio']['inference']:.2f} times" in text
    )
    assert f"pyramid {wall['training step']:.2f} and {wall['inference']:.2f} times" in text
    before = json.loads(text_of(GALLERY / "bench/without-amx/arithmetic-before.json"))
    told = f"{1000 * before['seconds']['step']:.0f} ms, {100 * before['ratio']:.0f} %."
    assert (
        f"of commit {before['provenance']['git']['commit'][:7]} on the second machine on the same day: {told}" in text
    )
