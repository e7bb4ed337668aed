"""Instance sets: the drawn one, and any folder in COCO format, behind one small interface (see dataset.py)."""
