"""Turns the records of a study into its report: Markdown, self-contained HTML, figures and tables."""
