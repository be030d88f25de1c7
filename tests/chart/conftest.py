"""`--update` writes what is generated."""

import pytest


def pytest_addoption(parser):
    parser.addoption("--update", action="store_true", help="write the generated files instead of comparing them")


@pytest.fixture
def same_as_written(request):
    """Compares a file with what it should be, or writes it."""

    def check(path, text):
        if request.config.getoption("--update"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        written = path.read_text() if path.exists() else ""
        assert written == text, f"{path.name} is out of date: tests/chart/run --update"

    return check
