"""Where the project itself lies."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
