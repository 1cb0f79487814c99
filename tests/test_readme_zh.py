"""The Chinese README keeps step with the English one: the same commands, the same figures in the same tables.

Compared is what no translation changes: command lines without their comments, and of each table row its numbers, code
and links.
"""

import re
from itertools import zip_longest
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
ENGLISH, CHINESE = "README.md", "README.zh-CN.md"
BLOCK = re.compile(r"^```\w*[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
TABLE = re.compile(r"(?:^\|[^\n]*\n)+", re.MULTILINE)
CONSTANT = re.compile(r"`[^`]+`|\]\([^)]+\)|(?<![\w.])\.?\d[\d.,]*(?: %)?")


def commands(text: str) -> list[str]:
    """Command lines of all blocks, without comments."""
    lines = [re.sub(r"(^|\s)#.*", "", line).strip() for body in BLOCK.findall(text) for line in body.splitlines()]
    return [line for line in lines if line]


def tables(text: str) -> list[list[list[str]]]:
    """Of each table its rows, each as what stays the same in translation."""
    prose = BLOCK.sub("", text)
    found = [table.splitlines() for table in TABLE.findall(prose)]
    return [[sorted(CONSTANT.findall(row)) for row in table[2:]] for table in found]


def differences(english: str, chinese: str) -> list[str]:
    """One line each: where, what the English has, what the Chinese has."""
    found = []
    for number, (a, b) in enumerate(zip_longest(commands(english), commands(chinese)), start=1):
        if a != b:
            found.append(f"command {number}: {ENGLISH} has {a!r}, {CHINESE} has {b!r}")
    if len(tables(english)) != len(tables(chinese)):
        found.append(f"{ENGLISH} has {len(tables(english))} tables, {CHINESE} has {len(tables(chinese))}")
    for number, (first, second) in enumerate(zip(tables(english), tables(chinese), strict=False), start=1):
        for row, (a, b) in enumerate(zip_longest(first, second), start=1):
            if a != b:
                found.append(f"table {number}, row {row}: {ENGLISH} has {a}, {CHINESE} has {b}")
    return found


def read(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def test_commands_and_tables_are_the_same() -> None:
    found = differences(read(ENGLISH), read(CHINESE))
    assert not found, "\n".join(["bring the two READMEs into step:", *found])


def test_links_of_the_chinese_readme_exist() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", read(CHINESE)):
        assert (REPOSITORY / link).exists(), link


def test_what_differs_is_named() -> None:
    english = "| a | b |\n|---|---|\n| x `f` | .05 (1,024) |\n\n```sh\nmake run  # now\n```\n"
    assert differences(english, english.replace("x", "甲").replace("# now", "# 现在")) == []
    assert differences(english, english.replace(".05", ".06")) == [
        f"table 1, row 1: {ENGLISH} has ['.05', '1,024', '`f`'], {CHINESE} has ['.06', '1,024', '`f`']"
    ]
    assert differences(english, english.replace("make run", "make ruin")) == [
        f"command 1: {ENGLISH} has 'make run', {CHINESE} has 'make ruin'"
    ]
    assert differences(english, english.replace("|", "")) == [f"{ENGLISH} has 1 tables, {CHINESE} has 0"]
    longer = english.replace("\n\n", "\n| y | 7 |\n\n")
    assert differences(longer, english) == [f"table 1, row 2: {ENGLISH} has ['7'], {CHINESE} has None"]
