"""Two builds side by side: an upgrade from an older one and the way back, under load. `tests/image` builds the older one."""

import os

from exits import Exits
from load import Load
from pairs import Pairs
from release import SMALL, TAG, Release
from stock import Stock
from test_moving import nothing_happened

# The tag of the older build.
OLDER = os.environ.get("LARDER_E2E_OLDER_TAG", "older")


def test_an_upgrade_from_an_older_build_and_its_rollback_show_to_no_caller(namespace):
    release = Release(namespace)
    release.install(*SMALL, "--set", f"image.tag={OLDER}")
    pairs = Pairs()
    with Exits(release) as exits, Load(release) as owners, Stock(release) as stock:
        assert runs(release) == {f"larder:{OLDER}"}
        with pairs.beside(stock):
            release.upgrade("--set", f"image.tag={TAG}")
            release.settles(3)
        assert runs(release) == {f"larder:{TAG}"}
        with pairs.beside(stock):
            release.helm("rollback", "1", "--wait")
            release.settles(3)
        assert runs(release) == {f"larder:{OLDER}"}
        reports = owners.end(), stock.end()
        exits.ended_well(6)
        nothing_happened(*reports)
        pairs.hold(reports[0])


def runs(release):
    """The images of the pods."""
    return {pod["spec"]["containers"][0]["image"] for pod in release.pods()}
