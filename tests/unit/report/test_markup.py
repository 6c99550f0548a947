"""Other people's HTML and Markdown in our page."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.report.markup import clean, markdown


@pytest.mark.parametrize(
    "html",
    [
        "<script>alert(1)</script>",
        "<SCRIPT src=http://evil.example/x.js></SCRIPT>",
        '<iframe src="http://evil.example"></iframe>',
        '<svg><use href="http://evil.example/#x"/></svg>',
        '<img src="http://evil.example/pixel.png">',
        "<p onclick=alert(1)>x</p>",
        '<a href="javascript:alert(1)">x</a>',
        '<div style="background:url(http://evil.example/x)">x</div>',
        "<style>@import 'http://evil.example/x.css';</style>",
        '<svg><image xlink:href="http://evil.example/x"/></svg>',
        '<meta http-equiv="refresh" content="0;url=http://evil.example">',
        '<base href="http://evil.example">',
        "<style></style><script>alert(1)</script></style>",
    ],
)
def test_nothing_runs_and_nothing_loads(html: str) -> None:
    cleaned = clean(html).lower()
    for trace in (
        "<script",
        "<iframe",
        "<use",
        "javascript:",
        "onclick",
        "url(",
        "@import",
        "<meta",
        "<base",
    ):
        assert trace not in cleaned
    assert 'src="http' not in cleaned
    assert 'href="http' not in cleaned


@given(st.text(alphabet="<>/=\"' abscriptonlyeu&#;!-", max_size=80))
def test_any_text_comes_out_harmless_and_balanced(html: str) -> None:
    cleaned = clean(html)
    assert "<script" not in cleaned.lower()
    assert clean(cleaned) == clean(clean(cleaned))


def test_drawings_survive() -> None:
    svg = '<svg viewBox="0 0 1 1"><g><title>a &amp; b</title><path d="M0 0L1 1"/></g></svg>'
    cleaned = clean(svg)
    assert 'viewBox="0 0 1 1"' in cleaned
    assert 'd="M0 0L1 1"' in cleaned
    assert "a &amp; b" in cleaned


def test_a_drill_down_is_answered_now_and_kept_with_its_link() -> None:
    asked: list[tuple[str, dict[str, object]]] = []

    def answer(endpoint: str, event: dict[str, object]) -> str:
        asked.append((endpoint, event))
        return "<p>the chain</p><script>x</script>"

    html = '<a>3 steps</a><cwdb-action action="call" endpoint="arn:x">{"widget": "decision"}</cwdb-action>'
    assert clean(html, answer) == '<a>3 steps</a><template class="popup"><p>the chain</p></template>'
    assert asked == [("arn:x", {"widget": "decision"})]


def test_markdown() -> None:
    shown = markdown(
        "# Cost · demo\nWhat *they* **spend**, `exactly`.\n\n"
        "- one\n- two\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n---\n\n"
        "[Main](#dashboards:name=AgentOps-Monitoring) [bad](javascript:alert(1)) <script>x</script>"
    )
    for part in (
        "<h1>Cost · demo</h1>",
        "<em>they</em> <strong>spend</strong>, <code>exactly</code>",
        "<li>one</li><li>two</li>",
        "<tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr>",
        "<hr>",
        '<a href="#AgentOps-Monitoring">Main</a>',
        "&lt;script&gt;",
    ):
        assert part in shown
    assert "javascript" not in shown
