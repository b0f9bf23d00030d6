"""A file of briefs: what is read, and what is refused with the number of its line."""

import json

import pytest

from apps.batches.files import MAX_ROWS, Table, read_table, table_of
from apps.common.errors import Invalid

CSV = "subject,must say,words\nNew ferry,from May; two boats,80\nOld bridge,,\n"


def cells(table: Table) -> list[dict[str, object]]:
    return [dict(row.cells) for row in table.rows]


EXPECTED = [
    {"subject": "New ferry", "must say": "from May; two boats", "words": "80"},
    {"subject": "Old bridge", "must say": "", "words": ""},
]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(CSV.encode(), id="utf-8"),
        pytest.param(CSV.encode("utf-8-sig"), id="utf-8 with mark"),
        pytest.param(CSV.encode("utf-16"), id="utf-16"),
        pytest.param(b"\xfe\xff" + CSV.encode("utf-16-be"), id="utf-16 big end first"),
        pytest.param(CSV.replace("\n", "\r\n").encode(), id="windows lines"),
        pytest.param(CSV.replace("\n", "\r").encode(), id="old mac lines"),
        pytest.param(CSV.replace("\n", "\n\n").encode(), id="empty lines"),
        pytest.param(CSV.replace(",", "\t").encode(), id="tabs"),
        pytest.param(CSV.replace(";", "\\").replace(",", ";").replace("\\", ",").encode(), id="semicolons"),
        pytest.param(CSV.replace("80", "80,,").encode(), id="commas at the end"),
        pytest.param(CSV.replace("words\n", "words,,\n").encode(), id="columns without a name at the end"),
    ],
)
def test_files_as_programs_write_them(data: bytes) -> None:
    table = read_table(data)

    assert list(table.columns) == ["subject", "must say", "words"]
    facts = "from May, two boats" if b"May, two" in data else "from May; two boats"
    assert cells(table) == [EXPECTED[0] | {"must say": facts}, EXPECTED[1]]


def test_a_row_knows_the_line_where_it_begins() -> None:
    table = read_table(b'\nsubject,facts\n"one\nline",a\n\n"two","b\nc"\nthree,d\n')

    assert [row.line for row in table.rows] == [3, 6, 8]
    assert table.rows[1].cells == {"subject": "two", "facts": "b\nc"}


def test_json_lines() -> None:
    lines = [
        {"title": "New ferry", "facts": ["from May; or June", 2, True], "words": 80, "note": None},
        {"title": "One\u2028two", "words": "80"},
    ]
    data = "\n\n".join(json.dumps(line, ensure_ascii=False) for line in lines)

    table = read_table(data.encode())

    assert list(table.columns) == ["title", "facts", "words", "note"]
    assert [row.line for row in table.rows] == [1, 3]
    assert cells(table) == [
        {"title": "New ferry", "facts": ["from May; or June", "2", "true"], "words": "80", "note": ""},
        {"title": "One\u2028two", "words": "80"},
    ]


def test_a_number_stays_as_it_was_written() -> None:
    table = read_table(b'{"subject": 1e999}\n{"subject": 1.50}\n{"subject": ' + b"9" * 5000 + b"}")

    assert [row.cells["subject"] for row in table.rows] == ["1e999", "1.50", "9" * 5000]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "The file is empty."),
        (b" \n\n", "The file is empty."),
        (b"\xef\xbb\xbf", "The file is empty."),
        (b"subject\n", "no row"),
        (b"PK\x03\x04...", "workbook"),
        (b"x" * (2 * 1024 * 1024 + 1), "larger than 2 MiB"),
        (b"subject\nfirst\ncaf\xe9\n", "Line 3: this is not UTF-8"),
        (b"\xff\xfes\x00\n\x00", "no row"),
        (b"\xff\xfes\x00u\x00\x00\xd8", "Line 1: this is not UTF-16"),
        (b"subject\na\nb\x00c\n", "Line 3: there are bytes"),
        (b"sub\x00ject\na\n", "Line 1: there are bytes"),
        (b"subject,tone,\nA,plain,3\n", "Line 2: 3 cells, but 2 columns"),
        (
            b"subject,tone\nA,b,c\nB,x\nC,d,e\n",
            "Line 2: 3 cells, but 2 columns. Put a cell that holds separators in quotes. Line 4: 3 cells",
        ),
        (b"subject,,tone\na,b,c\n", "Line 1: a column has no name"),
        (b"subject,tone,subject\na,b,c\n", "Line 1: there are two columns “subject”"),
        (b"x" * 130 + b"\na\n", "Line 1: a column's name is longer than 120"),
        (b",".join(b"c%d" % n for n in range(101)) + b"\na\n", "Line 1: 101 columns"),
        (b"," * 1_000_000, "The file is empty."),
        (b'subject\n"open\nand never closed\n', "Line 2: the quotes do not match"),
        (b'subject\n"a"b\n', "Line 2: the quotes do not match"),
        (b'"subject\n', "Line 1: the quotes do not match"),
        (b"subject\n" + b"x" * 131_073, "Line 2: a cell is longer"),
        (b"s\n" + b"x\n" * (MAX_ROWS + 1), "more than 10000 rows"),
        (b'{"subject": "a"}\n{"subject": }', "Line 2: no JSON at character 13"),
        (b'{"subject": "a", "subject": "b"}', "Line 1: “subject” is there twice"),
        (b'{"subject": {"tone": 1, "tone": 2}}', "Line 1: “tone” is there twice"),
        (b'{"subject": NaN}', "Line 1: NaN is no JSON number"),
        (b'{"subject": -Infinity}', "Line 1: -Infinity is no JSON number"),
        (b'{"subject": {"a": 1}}', "Line 1: “subject” holds a structure"),
        (b'{"subject": [["a"]]}', "Line 1: “subject” holds a structure"),
        (b'{"subject": "\\ud800"}', "Line 1: half of a character"),
        (b'{"subject": "\\u0000"}', "Line 1: there are bytes"),
        (b'{"": "a"}', "Line 1: a column has no name"),
        (b'{"a": 1}\n"text"', "Line 2: a row is a JSON object"),
        (b'[{"subject": "a"}]', "one JSON object per line"),
        (b'{"a":' + b"[" * 100_000, "Line 1: nested too deeply"),
        (b"{" + b",".join(b'"c%d":1' % n for n in range(101)) + b"}", "Line 1: more than 100"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_line(data: bytes, told: str) -> None:
    with pytest.raises(Invalid) as refused:
        read_table(data)

    assert refused.value.field == "file"
    assert told in refused.value.message


def test_only_the_first_few_lines_at_fault_are_told() -> None:
    with pytest.raises(Invalid) as refused:
        read_table(b"subject\n" + b"a,b\n" * 1000)

    assert refused.value.message.count("Line ") == 5


def test_records_are_a_table_too() -> None:
    table = table_of([{"subject": "A"}, {"subject": "B", "tone": "warm"}])

    assert list(table.columns) == ["subject", "tone"]
    assert [row.line for row in table.rows] == [1, 2]
    with pytest.raises(Invalid):
        table_of([])
