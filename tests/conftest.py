"""What every room's tests may use."""

import resource
from contextlib import contextmanager

import pytest

FIRST = {"test_demo.py", "test_docs.py", "test_file_trials.py", "test_minimal_install.py", "test_wheel.py"}
"""Files of few and long tests: begun last, they would keep one of two processes waiting."""


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in FIRST)


@pytest.fixture
def full_disk():
    """Bytes -> a block in which no file grows beyond so many, as on a full disk: a write takes a part, then fails."""

    @contextmanager
    def full(size):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return full
