"""RoI operators: RoIPool, RoIWarp and RoIAlign, one definition and several backends. Start at `geometry.py`."""
