"""How a study is started, as the first lines of its configuration say it."""

from pathlib import Path

STUDIES = Path(__file__).parent.parent.parent / "conf" / "study"


def start_of(name: str) -> tuple[str, str]:
    """The command that starts a study, with what it needs, and what it asks; "" for what its configuration leaves out.

    The line is "# python run.py study=NAME data=... : what it asks".
    """
    plain = f"python run.py study={name}"
    path = STUDIES / f"{name}.yaml"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    for line in lines:
        command, _, about = line.removeprefix("# ").partition(" : ")
        if line.startswith("# ") and f"{command} ".startswith(f"{plain} ") and about:
            return command, about
    return plain, ""
