"""Hooks of mkdocs: links out of docs/ become names of files; methods' pages show what the registry says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrite one page before it is rendered."""
    folder = Path(page.file.src_path).parent
    markdown = re.sub(r"\[([^\]]*)\]\(((?:\.\./)+[^)#]*)(#[^)]*)?\)", lambda link: _outside(link, folder), markdown)
    return re.sub(r"^<!-- method: (\w+) -->$", lambda found: method_facts(found[1]), markdown, flags=re.MULTILINE)


def _outside(link: re.Match[str], folder: Path) -> str:
    target = (ROOT / "docs" / folder / link[2]).resolve()
    if target.is_relative_to(ROOT / "docs"):
        return link[0]
    if not target.is_relative_to(ROOT) or not target.exists():
        raise FileNotFoundError(f"docs: {link[0]} leads nowhere")
    path = target.relative_to(ROOT).as_posix()
    return link[1] if link[1].strip("`/") == path.strip("/") else f"{link[1]} (`{path}` in the repository)"


def method_facts(name: str) -> str:
    """Source, deviations and settings of a method, as Markdown."""
    from v2a_ray.experiments.methods import METHODS
    from v2a_ray.settings.base import leaves

    method = METHODS[name]
    origin = "published combination" if method.published else "combination of ours"
    lines = [f"**`{name}`** ({origin}): {method.summary}.", ""]
    if method.source:
        lines += [f"*Source:* {method.source}.", ""]
    if method.deviations:
        lines += ["*Deviations from the source:*", "", *(f"- {deviation}" for deviation in method.deviations), ""]
    settings = leaves(method.settings)
    if settings:
        lines += ["*Settings:*", "", "```yaml", *(f"{key}: {settings[key]}" for key in sorted(settings)), "```", ""]
    lines.append(f"`v2a methods {name}` prints every setting of its stages with its value.")
    return "\n".join(lines)
