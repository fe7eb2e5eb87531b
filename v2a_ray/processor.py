"""Facts about this machine's processor. Rounding and speed depend on it, so results and measurements name it."""

from __future__ import annotations

import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


def processor_facts() -> dict[str, str]:
    """Fields of the first processor in Linux's /proc/cpuinfo, by name; empty on other systems."""
    facts: dict[str, str] = {}
    if CPUINFO.exists():
        for line in CPUINFO.read_text().splitlines():
            name, _, value = line.partition(":")
            facts.setdefault(name.strip(), value.strip())
    return facts


def processor_name() -> str:
    """For example `AMD EPYC (AuthenticAMD family 25 model 17)`."""
    facts = processor_facts()
    if "vendor_id" not in facts:
        return platform.processor() or platform.machine()
    numbers = f"{facts['vendor_id']} family {facts.get('cpu family', '?')} model {facts.get('model', '?')}"
    return f"{facts.get('model name', 'unknown')} ({numbers})"


def vector_instructions() -> str:
    """`AVX512`, `AVX2` or `other`: the processor's widest vector instructions, which determine its speed."""
    flags = processor_facts().get("flags", "").split()
    return "AVX512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "other"
