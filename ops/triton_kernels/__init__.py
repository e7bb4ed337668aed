MAX_LEVELS = 4
"""The most levels of a pyramid in one launch of the kernels."""
