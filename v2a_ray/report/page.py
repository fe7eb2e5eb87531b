"""What all HTML pages share: one style, and a frame that runs no script but its own and fetches nothing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources

from v2a_ray.outputs import MARK


def framed(title: str, body: str, script: str = "") -> str:
    """A page that needs nothing else; its policy names the SHA-256 of the only script that it may run."""
    style = resources.files(__package__).joinpath("page.css").read_text()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = f" script-src 'sha256-{digest}';" if script else ""
    policy = f"default-src 'none'; style-src 'unsafe-inline';{allowed} img-src data:"
    ending = f"<script>{script}</script>\n" if script else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="generator" content="{MARK}">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{escape(title)}</h1>\n{body}</main>\n{ending}</body>\n</html>\n"
    )


def section(name: str, content: str) -> str:
    """A part of the page under its heading."""
    return f"<section><h2>{escape(name)}</h2>{content}</section>\n"


def table(header: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts; it scrolls within itself where the page is narrow."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return wide(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")


def wide(content: str) -> str:
    """What scrolls within itself where the page is narrow, by keyboard too."""
    return f'<div class="wide" tabindex="0">{content}</div>'
