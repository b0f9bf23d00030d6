"""Two machines on one: two network namespaces with nothing but a cable between them.

One has PostgreSQL, Redis, web and beat, the other a writing worker that knows their addresses and a
folder of adapters that both mount. People sit in front of the first. Needs root.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import redis

from galley import embedded
from galley.launcher.child import Part
from tests.faults.house import SERVERS, House

HERE, THERE = "10.77.0.1", "10.77.0.2"
POSTGRESQL_PORT, REDIS_PORT = 5432, 6380
PASSWORD = "tests-only-password"
WORKER = "writing-1"


class Cable:
    """The two namespaces and the link between them."""

    def __init__(self) -> None:
        self.here, self.there = f"galley-here-{os.getpid()}", f"galley-there-{os.getpid()}"

    def lay(self) -> None:
        ip("netns", "add", self.here)
        ip("netns", "add", self.there)
        ip("-n", self.here, "link", "add", "cable", "type", "veth", "peer", "cable", "netns", self.there)
        for namespace, address in ((self.here, HERE), (self.there, THERE)):
            ip("-n", namespace, "address", "add", f"{address}/30", "dev", "cable")
            ip("-n", namespace, "link", "set", "lo", "up")
            ip("-n", namespace, "link", "set", "cable", "up")

    def cut(self) -> None:
        """At the far end: what the worker sends is dropped without a word, as on a real cable."""
        ip("-n", self.here, "link", "set", "cable", "down")

    def mend(self) -> None:
        ip("-n", self.here, "link", "set", "cable", "up")

    def remove(self) -> None:
        for namespace in (self.here, self.there):
            subprocess.run(["ip", "netns", "delete", namespace], capture_output=True, check=False)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def what_is_missing() -> str:
    """Why namespaces cannot be made here, or ""."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "`ip` is not installed"
    probe = f"galley-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"no network namespaces here: {made.stderr.strip()}"
    ip("netns", "delete", probe)
    return ""


class TwoMachines(House):
    """`writing-1` runs on the other machine. Nobody else writes."""

    def __init__(self, home: Path, cable: Cable) -> None:
        self.cable = cable
        self.other_home, store = home.with_name("other-home"), home.with_name("store")
        redis_url = f"redis://:{PASSWORD}@{HERE}:{REDIS_PORT}/0"
        super().__init__(home, num_workers=1, REDIS_URL=redis_url, GALLEY_STORE=str(store))
        self._listen_on_the_cable()
        for name, part in self.parts.items():
            self.parts[name] = _inside(cable.there if name == WORKER else cable.here, part)
        self._change(
            WORKER,
            DATABASE_URL=f"postgresql://worker:{PASSWORD}@{HERE}:{POSTGRESQL_PORT}/app",
            GALLEY_HOME=str(self.other_home),
        )

    def _listen_on_the_cable(self) -> None:
        rules = self.home / "pg_hba.conf"
        rules.write_text(f"local all all trust\nhost app worker {THERE}/32 scram-sha-256\n")
        listen = ("-c", f"listen_addresses={HERE}", "-c", f"port={POSTGRESQL_PORT}")
        self._change("postgresql", *listen, "-c", f"hba_file={rules}")
        self._change("redis", "--bind", HERE, "--port", str(REDIS_PORT), "--requirepass", PASSWORD)
        socket = f"unix://:{PASSWORD}@{embedded.runtime_dir(self.home)}/redis.sock?db=0"
        ready = replace(self.parts["redis"], ready=lambda: embedded.redis_problem(socket) is None)
        self.parts["redis"] = ready

    def _change(self, name: str, *words: str, **environment: str) -> None:
        part = self.parts[name]
        self.parts[name] = replace(
            part, argv=(*part.argv, *words), environment={**part.environment, **environment}
        )

    def _run(self, command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
        return super()._run([*_entering(self.cable.here), *command])

    def let_the_worker_in(self) -> None:
        """A role of its own with what the tables' owner may do."""
        self.query(f"CREATE ROLE worker LOGIN PASSWORD '{PASSWORD}' IN ROLE app")

    def addresses_of_the_worker(self) -> set[str]:
        """From where PostgreSQL and Redis see it come."""
        sessions = self.query("SELECT host(client_addr) FROM pg_stat_activity WHERE usename = 'worker'")
        socket = f"unix://:{PASSWORD}@{embedded.runtime_dir(self.home)}/redis.sock?db=0"
        with redis.Redis.from_url(socket, decode_responses=True) as client:
            listening = [one["addr"] for one in client.client_list() if one["cmd"] == "brpop"]
        return {address for (address,) in sessions} | {address.rpartition(":")[0] for address in listening}


def _inside(namespace: str, part: Part) -> Part:
    return replace(part, argv=(*_entering(namespace), *part.argv))


def _entering(namespace: str) -> tuple[str, ...]:
    return ("ip", "netns", "exec", namespace)


@contextmanager
def two_machines(home: Path) -> Iterator[TwoMachines]:
    """Everything up on both."""
    cable = Cable()
    try:
        cable.lay()
        house = TwoMachines(home, cable)
        try:
            house.start(*SERVERS)
            migrated = house.manage("migrate", "--no-input")
            assert migrated.returncode == 0, migrated.stderr
            house.let_the_worker_in()
            house.start("web", "beat", WORKER)
            yield house
        finally:
            house.stop()
    finally:
        cable.remove()
