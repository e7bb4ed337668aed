"""Instance sets: the synthetic one, and any folder in COCO format, behind one small interface (see dataset.py)."""
