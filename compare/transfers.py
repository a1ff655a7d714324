"""Transfers between PostgreSQL and MariaDB: `handfast bench db`, and Narayana from Java.

All use the same two servers, one after the other, with the same tables, made anew for each level,
and the same SQL. A row is one way of doing it at one number of transfers under way.
"""

from contextlib import contextmanager

from databases import Databases
from running import HERE, Processes, handfast_bench, handfast_version, maven_build

KIND = "transfers between PostgreSQL and MariaDB"

# What `bench db` calls its ways of a transfer, which it runs by turns of a second.
WAYS = {
    "transfer": "handfast",
    "transfer_server": "handfast, finished by the server",
    "transfer_by_hand": "by hand, without coordinator",
}


class Handfast:
    """`handfast bench db`, which also does the same by hand."""

    def __init__(self, binary, databases):
        self.binary, self.databases = binary, databases

    def prepare(self):
        return f"{handfast_version(self.binary)}, over {self.databases.versions()}"

    def measure(self, directory, levels, seconds, warmup):
        for level in levels:
            # Six ways, three of them of local transactions, have as many seconds each.
            report = handfast_bench(
                self.binary, directory, 90 + 8 * seconds,
                "db", "--concurrency", str(level), "--seconds", str(seconds),
                *self.databases.handfast(),
            )  # fmt: skip
            problems = report["problems"]
            for run in report["runs"]:
                if run["way"] not in WAYS:
                    continue
                yield {
                    "system": WAYS[run["way"]],
                    "kind": KIND,
                    "level": level,
                    "per_second": run["committed_per_second"],
                    "p50_ms": run["latency_us"]["p50"] / 1000,
                    "p99_ms": run["latency_us"]["p99"] / 1000,
                    "errors": len(problems),
                    "problems": problems,
                }
                # They are of all ways together, and told once.
                problems = []


class Narayana:
    """Narayana in the application's own process, with one of its two stores."""

    def __init__(self, store, databases):
        self.store, self.databases = store, databases

    def prepare(self):
        maven_build("narayana")
        jars = [jar.stem for jar in (HERE / "narayana" / "target" / "lib").glob("*.jar")]
        version = {
            name: next(jar.removeprefix(name + "-") for jar in jars if jar.startswith(name + "-"))
            for name in ("narayana-jta", "postgresql", "mariadb-java-client", "artemis-journal")
        }
        store = "a file for each transaction"
        if self.store == "journal":
            store = f"the journal of Artemis {version['artemis-journal']}"
        return (
            f"Narayana {version['narayana-jta']} with {store}, pgjdbc {version['postgresql']}, "
            f"MariaDB Connector/J {version['mariadb-java-client']}"
        )

    def measure(self, directory, levels, seconds, warmup):
        with Processes(directory) as processes:
            application = processes.part("application", self.java(directory / "store"))
            warm = application.ask(f"{max(levels)} {warmup} 1", 60 + 4 * warmup)
            for level in levels:
                told = application.ask(f"{level} 2 {seconds}", 90 + 4 * seconds)
                yield row(level, told, [warm["problem"], told["problem"]])
                warm["problem"] = ""

    def java(self, store):
        target = HERE / "narayana" / "target"
        postgres, mariadb = self.databases.postgres_port, self.databases.mariadb_port
        return [
            "java", "-Xms512m", "-Xmx512m",
            f"-Djava.util.logging.config.file={target / 'classes' / 'logging.properties'}",
            "-cp", f"{target / 'classes'}:{target / 'lib'}/*", "compare.Transfers",
            f"jdbc:postgresql://127.0.0.1:{postgres}/postgres?user=postgres&sslmode=disable",
            f"jdbc:mariadb://127.0.0.1:{mariadb}/handfast?user=root&sslMode=disable"
            "&useServerPrepStmts=true",
            self.store, store,
        ]  # fmt: skip


def row(level, told, problems):
    return {
        "kind": KIND,
        "level": level,
        "per_second": told["committed"] / told["seconds"],
        "p50_ms": told["p50_ms"],
        "p99_ms": told["p99_ms"],
        "errors": told["errors"],
        "problems": [problem.strip() for problem in problems if problem],
    }


@contextmanager
def used_by_all(systems, parent):
    """The two databases, as long as the systems take their turns."""
    databases = next(iter(systems.values())).databases
    try:
        databases.start(parent)
        yield
    finally:
        databases.stop()


def systems(handfast):
    """By the names that --only knows."""
    databases = Databases()
    return {
        "handfast": Handfast(handfast, databases),
        "narayana-files": Narayana("files", databases),
        "narayana-journal": Narayana("journal", databases),
    }
