"""Text widgets' Markdown, and other people's HTML made harmless."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser

from agentops_monitoring.views.svg import esc

Resolve = Callable[[str, dict[str, object]], str]

_VOID = frozenset(
    {"br", "hr", "img", "input", "col", "wbr", "area", "source", "track", "embed", "base", "meta", "link"}
)
_DROPPED = frozenset(
    {"script", "iframe", "use", "object", "embed", "base", "meta", "link", "form", "frame", "noscript"}
)
_DROPPED = frozenset(
    {"script", "iframe", "use", "object", "embed", "base", "meta", "link", "form", "frame", "noscript"}
)
_CASED = {
    "viewbox": "viewBox",
    "preserveaspectratio": "preserveAspectRatio",
    "lineargradient": "linearGradient",
}


class _Cleaner(HTMLParser):
    def __init__(self, resolve: Resolve | None) -> None:
        super().__init__(convert_charrefs=True)
        self.out: list[str] = []
        self._open: list[str] = []
        self._dropping = ""
        self._action: dict[str, str] | None = None
        self._asked = ""
        self._resolve = resolve

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._dropping or self._action is not None:
            return
        if tag in _DROPPED:
            self._dropping = "" if tag in _VOID else tag
            return
        if tag == "cwdb-action":
            self._action, self._asked = {name: value or "" for name, value in attrs}, ""
            return
        kept = "".join(f' {_CASED.get(n, n)}="{esc(v or "")}"' for n, v in attrs if _harmless(n, v or ""))
        self.out.append(f"<{_CASED.get(tag, tag)}{kept}>")
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag == self._dropping:
            self._dropping = ""
        elif tag not in _VOID and tag not in _DROPPED:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._dropping:
            self._dropping = "" if tag == self._dropping else self._dropping
        elif self._action is not None:
            if tag == "cwdb-action":
                self._finish_action(self._action)
                self._action = None
        elif tag in self._open:
            while self._open:
                last = self._open.pop()
                self.out.append(f"</{_CASED.get(last, last)}>")
                if last == tag:
                    break

    def handle_data(self, data: str) -> None:
        if self._action is not None:
            self._asked += data
        elif not self._dropping:
            style = bool(self._open) and self._open[-1] == "style"
            self.out.append(_safe_css(data) if style else esc(data))

    def _finish_action(self, action: dict[str, str]) -> None:
        """A static page can't call a function later, so a pop-up is asked for now and kept in a template."""
        shown = ""
        if action.get("action") == "html":
            shown = clean(self._asked)
        elif action.get("action") == "call" and self._resolve:
            shown = clean(self._resolve(action.get("endpoint", ""), json.loads(self._asked or "{}")))
        if shown:
            self.out.append(f'<template class="popup">{shown}</template>')

    def text(self) -> str:
        self.out += [f"</{_CASED.get(tag, tag)}>" for tag in reversed(self._open)]
        return "".join(self.out)


def _safe_css(css: str) -> str:
    return re.sub(r"url\s*\(|@import|expression\s*\(|</", "", css, flags=re.IGNORECASE)


def _harmless(name: str, value: str) -> bool:
    if name.startswith("on") or name in ("srcdoc", "action", "formaction", "id", "name"):
        return False
    if name in ("href", "src", "xlink:href", "poster", "background", "srcset"):
        return value.startswith(("#", "data:image/png", "data:image/jpeg"))
    return _safe_css(value) == value


def clean(html: str, resolve: Resolve | None = None) -> str:
    """HTML without scripts, frames, loaders and handlers; tags are balanced.

    Parameters
    ----------
    html : str
        What a custom widget returned.
    resolve : Callable[[str, dict[str, object]], str] | None
        Answers the widget's ``cwdb-action`` calls (endpoint, event); without it they are left out.
    """
    cleaner = _Cleaner(resolve)
    cleaner.feed(html)
    cleaner.close()
    return cleaner.text()


_LINK = re.compile(r"\[(?:button:(?:primary:)?)?([^\]]+)\]\(([^)\s]*)\)")


def _link(found: re.Match[str]) -> str:
    dashboard = re.search(r"dashboards:name=([\w.-]+)", found[2])
    if dashboard:
        return f'<a href="#{dashboard[1]}">{found[1]}</a>'
    return (
        f'<a href="{found[2]}" rel="noreferrer">{found[1]}</a>'
        if found[2].startswith("https://")
        else found[1]
    )


def _inline(text: str) -> str:
    shown = re.sub(r"`([^`]+)`", r"<code>\1</code>", esc(text))
    shown = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", shown)
    shown = re.sub(r"(?<!\w)[*_](?!\s)(.+?)(?<!\s)[*_](?!\w)", r"<em>\1</em>", shown)
    return _LINK.sub(_link, shown)


def markdown(text: str) -> str:
    """The Markdown that text widgets use: headings, emphasis, code, links, lists, tables, rules."""
    out: list[str] = []
    for block in re.split(r"\n\s*\n", text.strip()):
        lines = block.splitlines()
        while lines and (heading := re.match(r"(#{1,6})\s+(.*)", lines[0])):
            level = len(heading[1])
            out.append(f"<h{level}>{_inline(heading[2])}</h{level}>")
            lines = lines[1:]
        if not lines:
            continue
        if all(re.match(r"\s*[-*]\s+", line) for line in lines):
            items = (re.sub(r"^\s*[-*]\s+", "", line) for line in lines)
            out.append("<ul>" + "".join(f"<li>{_inline(item)}</li>" for item in items) + "</ul>")
        elif len(lines) > 1 and "|" in lines[0] and re.match(r"^[\s|:-]+$", lines[1]):
            rows = [
                [cell.strip() for cell in line.strip().strip("|").split("|")]
                for line in [lines[0], *lines[2:]]
            ]
            cells = [
                "".join(f"<{t}>{_inline(c)}</{t}>" for c in r)
                for t, r in zip(["th", *["td"] * len(rows)], rows, strict=False)
            ]
            out.append("<table>" + "".join(f"<tr>{row}</tr>" for row in cells) + "</table>")
        elif re.match(r"^(-{3,}|\*{3,})$", block.strip()):
            out.append("<hr>")
        else:
            out.append(f"<p>{'<br>'.join(_inline(line) for line in lines)}</p>")
    return "".join(out)
