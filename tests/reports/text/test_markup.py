"""Text as Markdown: what is marked stays, all other text is shown as it is."""

from reports.text.markup import Marked, bold, code, emphasis, escape, paragraphs, table


def test_marked_text_stays_markdown():
    assert escape(Marked("**bold**")) == "**bold**" and escape("**bold**") == r"\*\*bold\*\*"
    assert bold("a*b") == r"**a\*b**" and emphasis("a_b") == r"*a\_b*"
    assert escape("# no heading") == r"\# no heading" and escape("1. no list") == r"\1. no list"


def test_names_are_code_unless_a_code_span_cannot_hold_them():
    assert code("roi.op") == "`roi.op`" and code("a*b") == "`a*b`" and code("") == ""
    assert code("a`b") == r"a\`b" and code("a|b") == r"a\|b" and code("a<b") == "a&lt;b"


def test_control_characters_and_line_breaks_become_blanks():
    assert escape("a\r\n\x1b[31mb\u2028c") == r"a \[31mb c"


def test_tables_align_their_first_columns_left():
    assert table(["a|b"], [["c|d"]]) == "| a\\|b |\n|:--|\n| c\\|d |"
    assert table(["a", "b", "c"], [[1, 2, 3]], left=2) == "| a | b | c |\n|:--|:--|--:|\n| 1 | 2 | 3 |"
    assert table(["a"], []) == ""


def test_paragraphs_leave_out_empty_blocks():
    assert paragraphs(Marked("a"), Marked(""), Marked("b")) == "a\n\nb"
