"""The command line: what it answers at once, without torch, and what it refuses before any work begins."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ablations import cli
from ablations.config.overrides import composer, group_options, overrides_of_runs
from ablations.errors import ConfigError

ROOT = Path(__file__).parents[2]

GROUPS = group_options()

ROIS = "align, align_16, align_32, align_8, align_max, pool, warp, warp_max"


def refused(capsys, *arguments):
    """What is said of a command line that is refused, a line for each mistake."""
    code = cli.main(list(arguments), "")
    told = capsys.readouterr()
    assert (code, told.out) == (2, ""), told
    assert all(line.startswith("error: ") for line in told.err.splitlines())
    return [line.removeprefix("error: ") for line in told.err.splitlines()]


def requests(*arguments):
    """The requests of a sweep."""
    overrides = overrides_of_runs(list(arguments), True, GROUPS)
    with composer(GROUPS) as compose:
        return cli.prepare(overrides, compose)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["roi=pol"],
        ["lr=0.1"],
        ["study=roialign", "budget.train.lr=0"],
        ["-m", "threads=1,2"],
        ["-m", "roi=pool,algn"],
        ["roi=pool", "budget.seeds=3"],
        ["--cfg", "job", "study=roialign"],
    ],
)
def test_help_and_mistakes_need_no_torch(arguments):
    code = f"import sys; from ablations.cli import main; main({arguments}, ''); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and (done.stdout or done.stderr), done.stderr


@pytest.mark.slow
def test_completion_offers_options_but_no_bases():
    code = "import sys; from ablations.cli import main; main(sys.argv[1:], ''); sys.exit('torch' in sys.modules)"
    line = "python run.py budget="
    done = subprocess.run(
        [sys.executable, "-c", code, "-sc", "query=bash"],
        cwd=ROOT,
        env={"COMP_LINE": line, "COMP_POINT": str(len(line))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [
        f"budget={name}" for name in ("backbone", "finetune", "gpu", "laptop", "paper", "photos", "smoke", "taste")
    ]


@pytest.mark.parametrize(
    "argument, expected",
    [
        (
            "roi=pol",
            f"roi: expected one of {ROIS}, got pol; did you mean pool?",
        ),
        ("study=roialing", "got roialing; did you mean roialign?"),
        ("lr=0.1", "lr: no such setting; did you mean budget.train.lr or budget.rpn.lr?"),
        ("+lr=0.1", "lr: no such setting; did you mean"),
        ("rio=pool", "rio: no such setting; did you mean roi?"),
        ("roi.opp=pool", "roi.opp: no such setting; did you mean roi.op?"),
        (
            "budget=_base",
            "budget: expected one of backbone, finetune, gpu, laptop, paper, photos, smoke, taste, got _base",
        ),
        ("budget=_budget", "got _budget"),
        ("model=null", "got null"),
        ("roi=", "got ''"),
        ("roi={op: pool}", "expected one of align"),
        ("outputs=", "outputs: expected text"),
        ("stride=abc", "stride: expected a whole number, got abc"),
        ("checkpoint=5", "checkpoint: expected a group of settings, got 5"),
        ("study.name=mine", "study: expected one with arms, such as study=roialign, got only name"),
        ("roi", "roi: expected SETTING=VALUE, such as roi=pool"),
        ("=3", "=3: expected SETTING=VALUE"),
        ("~roi", "a run needs every setting"),
        ("roi@mask=pool", "roi@mask: no such setting"),
        ("budget/train=3", "budget/train: no such setting; dots lead to"),
        ("roi=[pool,align]", "got [pool,align]; to compare them, python run.py -m roi=pool,align"),
        ("roi=pool,align", "for a run with each, python run.py -m roi=pool,align"),
        ("stride=[16,32]", "got [16, 32]; for a run with each, python run.py -m stride=16,32"),
        ("budget.train.lr=[0.1,0.2]", "for a run with each, python run.py -m budget.train.lr=0.1,0.2"),
        ("stride=16,32", "for a run with each, python run.py -m stride=16,32"),
        ("logger=[wandb,tensorboard]", "expected one of none, tensorboard, wandb, got [wandb,tensorboard]; give one"),
        ("hydra/launcher=ray", "launcher=ray and launcher=submitit choose"),
        ("hydra/sweeper=optuna", "no optimiser chooses among them: arms share one schedule"),
        ("hydra.mode=MULTIRUN", "-m makes a sweep"),
        ("model.weights=${HOME}", "model.weights: expected ${...} to name another setting"),
        ("data.root=~/a", "write data.root=$HOME/a"),
        ("data.root=/a,b", """quotes within quotes: 'data.root="/a,b"'"""),
        ("data.root=/a (b)", """quotes within quotes: 'data.root="/a (b)"'"""),
        ("data.root=/zoë", """quotes within quotes: 'data.root="/zoë"'"""),
        ("data.root=/a=b", """quotes within quotes: 'data.root="/a=b"'"""),
        ("model.anchor_sizes=[16,32", "check its quotes and brackets"),
        ('data.root="/a', "check its quotes and brackets"),
    ],
)
def test_a_mistake_gets_one_line_that_says_what_to_do(capsys, argument, expected):
    (line,) = refused(capsys, argument)
    assert expected in line
    assert "hydra.cc" not in line and "HYDRA_FULL_ERROR" not in line and "+lr" not in line


@pytest.mark.parametrize("value", ["/a,b", "/a (b)", "/zoë", "/a=b", "a'b", 'a"b', "/(a)\\"])
def test_the_quotes_that_are_advised_give_the_value_as_text(capsys, value):
    (line,) = refused(capsys, f"data.root={value}")
    words = subprocess.run(["bash", "-c", f"printf %s {line.partition('quotes: ')[2]}"], capture_output=True, text=True)
    with composer(GROUPS) as compose:
        assert compose([words.stdout]).data.root == value


def test_mistakes_in_several_arguments_are_told_together(capsys):
    told = refused(capsys, "roi=pol", "study=roialing", "~stride", "hydra/sweeper=optuna")
    assert len(told) == 4
    assert len(refused(capsys, "stride=8", "seed=-1", "rpn=none", "lr=3")) == 4
    assert len(refused(capsys, "study=roialign", "stride=32", "roi=pool", "seed=1", "lr=3")) == 4


def test_mistakes_in_swept_values_are_told_once(capsys):
    assert refused(capsys, "-m", "roi=pool,algn", "stride=16,32") == [
        f"roi: expected one of {ROIS}, got algn; did you mean align?"
    ]
    assert refused(capsys, "-m", "roi=pool,align", "stride=16,8") == ["stride: expected 16 or 32 for this model, got 8"]
    assert "interval" in refused(capsys, "-m", "budget.train.lr=interval(0.1,1)")[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments, reason",
    [
        (["task=proposals", "roi=pool"], "roi: has no effect: task=proposals"),
        (["task=proposals", "budget.train.lr=1"], "budget.train.lr: has no effect"),
        (["study=rpn", "model.box_hidden=8"], "model.box_hidden: has no effect"),
        (["rpn=joint", "budget.rpn.steps=3"], "budget.rpn.steps: has no effect: rpn=joint"),
        (["rpn=jitter", "budget.rpn.steps=3"], "budget.rpn.steps: has no effect: rpn=jitter"),
        (["rpn=jitter", "model.anchors_per_image=8"], "model.anchors_per_image: has no effect: rpn=jitter"),
        (["rpn=joint", "jitter.share=0.1"], "jitter.share: has no effect: only rpn=jitter"),
        (["system=fcis", "model.pooled_size=9"], "model.pooled_size: has no effect: system=fcis"),
        (["model=r50_c4", "budget.backbone.steps=3"], "budget.backbone.steps: has no effect: the backbone comes"),
        (["budget.seeds=3"], "budget.seeds: has no effect: a single run has one seed"),
        (["logger.project=mine"], "logger.project: has no effect: only logger=wandb"),
        (["launcher.cluster=local"], "launcher.cluster: has no effect: only launcher=submitit"),
        (["mask_head=mlp", "model.mask_depth=2"], "model.mask_depth: has no effect: only mask_head=fcn"),
        (["roi=pool", "roi.sampling_ratio=2"], "roi.sampling_ratio: expected 0, got 2"),
        (["roi=pool", "roi=align"], "roi: given 2 times"),
    ],
)
def test_settings_that_have_no_effect_are_refused(capsys, arguments, reason):
    (line,) = refused(capsys, *arguments)
    assert line.startswith(reason)


def test_last_value_wins_for_a_repeated_setting():
    assert overrides_of_runs(["stride=16", "seed=1", "stride=32"], False, GROUPS) == [["stride=32", "seed=1"]]


def test_a_setting_that_decides_something_in_one_arm_is_accepted():
    (request,) = requests("study=fcis", "model.pooled_size=9", "budget.seeds=1")
    assert len(request.runs) == 3


def test_settings_that_no_file_lists_need_no_plus(tmp_path):
    (request,) = requests("launcher=submitit", "launcher.options.slurm_partition=gpu", "model.smallest_proposal=2")
    config = request.runs[0].config
    assert config.launcher.options == {"timeout_min": 240, "slurm_partition": "gpu"}
    assert config.model.smallest_proposal == 2


def test_configurations_of_a_sweep_never_share_a_folder(tmp_path):
    names = ["sets/a_b", "sets/a/b", "Sets/a/b", "sets/a__b", "'sets/a b'"]
    for name in names:
        root = tmp_path / name.strip("'")
        for split in ("train", "val"):
            (root / split).mkdir(parents=True, exist_ok=True)
            (root / "annotations").mkdir(exist_ok=True)
            (root / f"annotations/instances_{split}.json").touch()
    roots = ",".join(f'"{tmp_path}/{name}"' for name in (name.strip("'") for name in names))
    made = requests("data=coco", f"data.root={roots}", "stride=16,32")
    folders = [request.folder for request in made]
    assert len(folders) == 2 * len(names)
    assert len({str(folder).lower() for folder in folders}) == len(folders)  # even where capitals count for nothing


@pytest.mark.parametrize("argument", ["threads=1,2", "logger=none,none", "seed=0,0", "checkpoint.seconds=30,60"])
def test_a_sweep_that_would_be_the_same_run_twice_is_refused(argument):
    with pytest.raises(ConfigError, match="expected values that give different results"):
        requests(argument)


def test_a_sweep_of_a_study_under_one_name_is_refused():
    with pytest.raises(ConfigError, match="mask_class: expected one study in outputs/maskloss, got several"):
        requests("study=maskloss", "mask_class=specific,agnostic")
    assert len(requests("study=maskloss", "outputs=a,b")) == 2


def test_help_has_every_option_and_every_setting_with_its_comment(capsys):
    assert cli.main(["--help"], "Introduction.") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Introduction."
    words = [line.split() for line in lines]
    for options in GROUPS.values():
        for option in options:
            assert [line for line in words if line[:1] == [option] or line[:2] == ["*", option]], option
    text = "\n".join(lines)
    for line in (ROOT / "conf/config.yaml").read_text(encoding="utf-8").splitlines()[1:]:
        assert "_self_" in line or line.partition("# ")[2] in text
    with composer(GROUPS) as compose:
        settings = compose([])
    assert all(any(line.strip().startswith(f"{name}:") for line in lines) for name in settings if name != "study")
    assert sum("share of the steps in which the rate rises" in line for line in lines) == 3  # of each schedule


@pytest.mark.slow
@pytest.mark.parametrize(
    ("group", "option"),
    [(group, option) for group, options in GROUPS.items() for option in options if group != "study"],
)
def test_every_setting_that_help_shows_has_a_comment(capsys, group, option):
    """`kind` and `name` only repeat which option was chosen; lines of nested groups are headings."""
    assert cli.main(["--help", f"{group}={option}"], "") == 0
    settings = capsys.readouterr().out.partition("\nSettings (")[2].splitlines()[1:]
    leaves = [line for line in settings if re.match(r" *(?!kind:|name:)\w+: ", line)]
    assert len(leaves) > 60
    assert [line for line in leaves if "  # " not in line] == []


def test_help_shows_the_settings_of_chosen_options(capsys):
    assert cli.main(["--help", "system=fcis", "model=toy_fpn_head"], "") == 0
    out = capsys.readouterr().out
    assert "vote_threshold: 0.4" in out and "mask_pooled_size: 14" in out and "* toy_fpn_head" in out


def test_the_settings_of_a_run_can_be_shown(capsys):
    assert cli.main(["--cfg", "job", "roi=pool"], "") == 0
    assert "op: pool" in capsys.readouterr().out


def test_another_folder_of_settings_adds_options(capsys, tmp_path):
    (tmp_path / "roi").mkdir()
    (tmp_path / "roi/exact.yaml").write_text(
        "op: align\nreduce: ave\naligned: true\nsampling_ratio: 0\nbackend: auto\n"
    )
    assert cli.main(["--config-dir", str(tmp_path), "--cfg", "job", "roi=exact"], "") == 0
    assert "aligned: true" in capsys.readouterr().out
    assert "got exact" in refused(capsys, "roi=exact")[0]
    assert "no such folder" in refused(capsys, "--config-dir", str(tmp_path / "nowhere"))[0]


def test_outputs_that_cannot_be_written_are_refused(capsys, tmp_path):
    (tmp_path / "file").touch()
    (line,) = refused(capsys, f"outputs={tmp_path}/file/folder")
    assert line.startswith("outputs: expected a writable folder")


def test_mistakes_of_all_kinds_are_told_together(capsys):
    lines = refused(capsys, "roi=pol", "roi.step=-1", "stride=17", "lr=0.1", "workers=0")
    assert [line.partition(":")[0] for line in lines] == ["roi", "lr", "workers", "stride"]  # roi's own wait for it


def test_what_an_unknown_option_decides_is_not_judged(capsys):
    (line,) = refused(capsys, "model=toi", "stride=8")  # there is a model with stride 8
    assert line.startswith("model: expected one of ") and line.endswith("did you mean toy?")


@pytest.mark.parametrize(
    "argument, expected",
    [
        ("data.root=x", "data.root: no such setting here; there is data.root with data=coco or"),
        ("project=x", "project: no such setting here; there is logger.project with logger=wandb"),
        ("batch_size=8", "batch_size: no such setting; did you mean budget.train.images_per_step or"),
        ("studi=roialign", "studi: no such setting; did you mean study?"),
        ("seeds=3", "seeds: no such setting; did you mean seed or"),
        ("data.kind=coco", "data.kind: the option of data decides it; data=OPTION, with OPTION one of coco, "),
    ],
)
def test_advice_is_not_refused_afterwards(capsys, argument, expected):
    (line,) = refused(capsys, argument)
    assert line.startswith(expected)


def test_help_says_which_settings_have_no_effect_with_the_chosen_options(capsys):
    assert cli.main(["--help"], "") == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert any(line.startswith("copies: ") and "(not used here: only rpn=jitter has it)" in line for line in lines)
    assert any(line.startswith("steps: ") and "not used here: the backbone comes pretrained" in line for line in lines)
    assert not any(line.startswith("seeds: ") and "not used here" in line for line in lines)


@pytest.mark.slow
def test_without_the_packages_a_sentence_says_how_to_get_them(tmp_path):
    (tmp_path / "hydra.py").write_text("raise ModuleNotFoundError(\"No module named 'hydra'\", name='hydra')")
    code = f"import sys, runpy; sys.path.insert(0, {str(tmp_path)!r}); runpy.run_path('run.py', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("error: the package hydra is not installed for ") and "make setup" in done.stderr
