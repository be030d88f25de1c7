"""Three real `larder serve` processes with a members file between them, which this side writes as an orchestrator does."""

import json
import urllib.error
import urllib.request

from support.replica import Replica
from support.waiting import until


class Cluster:
    def __init__(self, folder, count, *flags):
        self.members_file = folder / "members.json"
        self.version = 0
        self.endpoints = []
        self.replicas = []
        self._write()
        for number in range(count):
            self._join(folder, f"replica-{number}", flags)
        until("all are settled", lambda: all(self._sees_all(replica) for replica in self.replicas), 30)

    def _join(self, folder, uid, flags):
        own = folder / uid
        own.mkdir()
        flags = ["--members-file", self.members_file, "--uid", uid, "--workers", "1", *flags]
        replica = Replica(own, *flags, environment={"LARDER_PEER_LISTEN": "127.0.0.1:0"})
        self.replicas.append(replica)
        places = {"address": replica.addresses["grpc"], "peer": replica.addresses["peer"]}
        self.endpoints.append({**places, "uid": uid, "ready": False})
        self._write()
        until(f"{uid} is ready", lambda: self._page(replica, "readyz") is not None, 30)
        self.endpoints[-1]["ready"] = True
        self._write()

    def _write(self):
        self.version += 1
        temporary = self.members_file.with_suffix(".new")
        temporary.write_text(json.dumps({"version": self.version, "endpoints": self.endpoints}))
        temporary.rename(self.members_file)

    def _sees_all(self, replica):
        page = json.loads(self._page(replica, "members"))
        on_ring = [member for member in page["members"] if member["state"] == "ring"]
        return page["settled"] and len(on_ring) == len(self.replicas)

    @staticmethod
    def _page(replica, name):
        try:
            with urllib.request.urlopen(f"http://{replica.addresses['admin']}/{name}", timeout=10) as page:
                return page.read().decode()
        except (urllib.error.URLError, ConnectionError):
            return None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for replica in self.replicas:
            replica.close()
