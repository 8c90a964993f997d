"""Elements of HTML and diagrams: every text is escaped, every number is where it says, every point where it belongs."""

from __future__ import annotations

import re
from html import escape
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from unidiff.page.chart import Curve, chart
from unidiff.page.html import MARK, Markup, document, element, number, plain, rows, table
from unidiff.page.report import Figure, Pair, RunFacts, page

HOSTILE = "</script><script>alert(1)</script>\"' onerror=x & <img src=x> \x1b[2J \udcff ‮"


class Reader(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.words += data


def facts(**content):
    base = {
        "name": HOSTILE,
        "directory": HOSTILE,
        "manifest": {"status": HOSTILE, "x": float("nan")},
        "recipe": HOSTILE,
    }
    metrics = {"lines": 1, "step": [1], "loss": [0.5], "last": {"step": 1}}
    values = {"process": {"type": HOSTILE, HOSTILE: HOSTILE}, "sampling": 3, "training": [HOSTILE]}
    return RunFacts({**base, "metrics": metrics, "values": values, **content}, figures=[Figure(b"", HOSTILE)])


def test_texts_are_escaped_wherever_they_stand():
    text = page([facts(), facts(evaluation=None)])
    assert text.startswith(MARK)
    text.encode()  # no half of a surrogate is left
    reader = Reader(text)
    assert [tag for tag, _ in reader.tags].count("script") == 2  # the content, and the page's own
    assert not {name for _, attributes in reader.tags for name in attributes if name.startswith("on")}
    sources = [attributes["src"] or "" for tag, attributes in reader.tags if tag == "img" and "src" in attributes]
    assert sources
    assert all(source.startswith("data:image/") for source in sources)
    assert "\x1b" not in text
    assert "‮" not in text
    (policy,) = [attributes["content"] for _, attributes in reader.tags if "http-equiv" in attributes]
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_elements():
    assert element("p", "a < b", None, Markup("<b>c</b>")) == "<p>a &lt; b<b>c</b></p>"
    assert element("input", hidden=True, value='"', disabled=False, data_x=None) == '<input hidden value="&quot;">'
    assert table(["a"], [["<"]]).count("&lt;") == 1
    assert rows({"a": None, "b": 0}) == "<dl><dt>b</dt><dd>0</dd></dl>"
    assert plain({1: (float("inf"), {2: object})}) == {"1": ["inf", {"2": str(object)}]}
    assert "\\u003c/script>" in document("t", [], {"a": "</script>"})


def test_a_number_says_where_it_is():
    content = {"a": [{"b": 1234567, "c": 0.123456, "d": None, "e": "text"}]}
    assert number(content, "a", 0, "b") == '<data value="1234567" data-path="a/0/b">1,234,567</data>'
    assert number(content, "a", 0, "c", digits=2) == '<data value="0.123456" data-path="a/0/c">0.12</data>'
    assert number(content, "a", 0, "d") == ""
    assert number(content, "a", 0, "e") == '<span data-path="a/0/e">text</span>'


@pytest.mark.parametrize("logarithmic", ["", "xy"])
def test_points_of_a_diagram_are_where_they_belong(logarithmic):
    x, y = [1.0, 10.0, 100.0, float("nan")], [0.01, 0.1, 1.0, 5.0]
    figure = ElementTree.fromstring(chart("t", "x", "y", [Curve("<one>", x, y, marked=True)], logarithmic))
    assert figure.find("svg/title").text == "t"
    circles = [(float(c.get("cx")), float(c.get("cy"))) for c in figure.iter("circle")]
    left, middle, right = circles  # the point that is not finite is left out
    share = 0.5 if logarithmic else 9 / 99
    for axis in (0, 1):
        place = left[axis] + share * (right[axis] - left[axis])
        assert abs(middle[axis] - place) <= 0.11  # coordinates have one decimal
    assert right[0] > left[0]
    assert right[1] < left[1]  # upwards is less
    words = [text.text for text in figure.iter("text")]
    assert ("10" in words) == bool(logarithmic)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([1], [0.0]),
        ([1, 2], [3.0, 3.0]),
        ([0, 1e9], [-1e30, 1e30]),
        ([5, 6], [1e-12, 2e-12]),
        ([1], [1e20]),  # 0.5 is nothing beside it
        ([1, 2], [-1e20, -1e20 * (1 + 2**-52)]),
        ([5e-324, 1e300], [5e-324, 1e300]),
        ([0, 1, 2], [0.0, 5e-324, 1.7e308]),  # the last is not drawn
        ([1, 10**400, 3], [-1e300, 1.0, 1e300]),
    ],
)
def test_any_curve_is_drawn(x, y):
    figure = ElementTree.fromstring(chart("t", "x", "y", [Curve("a", x, y), Curve("b", x, y)], "xy"))
    numbers = [float(v) for path in figure.iter("path") for v in re.findall(r"[-\d.]+", path.get("d"))]
    assert all(0 <= value <= 640 for value in numbers)
    assert len(list(figure.iter("line"))) >= 2
    assert chart("t", "x", "y", [Curve("a", [], [])]) is None


def test_commands_that_repeat_a_run():
    lines = page([facts(directory="-x", values={"backbone": {"type": "MLP"}})])
    assert all(f"unidiff {command} ./-x\n" in lines for command in ("sample", "evaluate"))
    assert "--allow-imports" not in lines
    values = {"backbone": {"type": "MLP"}, "conditioning": [{"type": "Labels"}, {"type": "mine:Own"}]}
    lines = page([facts(directory="a b", values={**values, "start": "shipped:ddpm_digits"})])
    for command in ("run recipe.yaml --out again", "sample 'a b'", "evaluate 'a b'", "report 'a b' --full"):
        assert escape(f"unidiff {command} --allow-imports") in lines


def test_pairs_and_several_runs_side_by_side():
    one = facts(name="one", neighbours={"held_out": 1.5, "pairs": [{"seed": 3, "row": 7, "distance": 1.25}]})
    text = page([RunFacts(one.content, pairs=[Pair(b"a", b"b")]), facts(name="two")])
    reader = Reader(text)
    assert "<title>one, two - unidiff</title>" in text
    assert {"one", "two"} <= set(re.findall(r"<h3>(\w+)</h3>", text))
    assert "training sample 7" in reader.words
    assert "Nothing of this run." in reader.words
