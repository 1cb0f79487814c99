"""The site's hook: what our tests tag, and what mkdocs would silently lose."""

from types import SimpleNamespace

import pytest
import site_pages
from mkdocs.exceptions import PluginError


def test_a_block_for_the_tests_is_a_block_of_the_site():
    assert site_pages.on_page_markdown("a\n```sh test\nls\n```\n") == "a\n```sh\nls\n```\n"
    assert site_pages.on_page_markdown("```python\n1\n```\n") == "```python\n1\n```\n"


def test_a_fence_that_is_left_stops_the_build():
    page = SimpleNamespace(file=SimpleNamespace(src_path="own.md"))
    assert site_pages.on_post_page("<p>fine</p>", page=page) == "<p>fine</p>"
    with pytest.raises(PluginError, match=r"own\.md"):
        site_pages.on_post_page("<p>```sh odd</p>", page=page)
