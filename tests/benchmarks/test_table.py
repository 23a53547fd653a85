"""The generated table: a row by hand, and the page as it stands."""

import json

import table
from harness import Row

MACHINE = {"cores": 2, "cpu": "some CPU", "python": "3.11.7", "torch": "2.14.1", "load": 0.4}


def test_a_row_says_what_its_figures_are(tmp_path):
    rows = [
        Row("iou", "3 cells; a peer, from a file", ours=0.004321, peer=1.5),
        Row("memory", "3 cells; peer: another", ours=1234.0, peer=617.0, unit="MiB"),
        Row("start", "one run", ours=2.0),
    ]
    kept = {"machine": MACHINE, "rows": [row.as_dict() for row in rows]}
    (tmp_path / "iou.json").write_text(json.dumps(kept))
    assert table.render(tmp_path).splitlines() == [
        "| what | on what | ours | peer | times better |",
        "|---|---|---|---|---|",
        "| iou | 3 cells | 4.3 ms | a peer, from a file: 1.5 s | 347 |",
        "| memory | 3 cells | 1,200 MiB | another: 620 MiB | 0.5 |",
        "| start | one run | 2 s |  |  |",
        "",
        "On 2 cores of some CPU, Python 3.11.7, torch 2.14.1: iou (load 0.4).",
    ]


def test_the_page_has_the_rows_that_were_kept():
    text = table.PAGE.read_text("utf-8")
    assert text == table.page(), "bring it up to date: ./run_all.sh bench --keep NAME, or table.write()"
    assert text.count(table.BEGIN) == text.count(table.END) == 1
