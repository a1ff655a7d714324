"""Transactions of two participants that do nothing: handfast, DTM and Seata.

Every system is a client, a server and two participants in processes of their own. A row is one
system at one number of transactions under way.
"""

import subprocess
import time

from running import (
    HERE, Processes, free_port, go_build, handfast_bench, handfast_version, maven_build, need,
)  # fmt: skip

PARTICIPANTS = 2
KIND = "transactions of two participants"


class Handfast:
    """`handfast bench tx`, which adds an event of 200 bytes to each transaction."""

    def __init__(self, binary, wait):
        self.binary, self.wait = binary, wait
        self.name = "handfast" if wait == "decided" else f"handfast ({wait})"

    def prepare(self):
        return handfast_version(self.binary)

    def measure(self, directory, levels, seconds, warmup):
        for level in levels:
            report = handfast_bench(
                self.binary, directory, 60 + 4 * seconds,
                "tx", "--participants", str(PARTICIPANTS), "--concurrency", str(level),
                "--seconds", str(seconds), "--wait", self.wait,
            )  # fmt: skip
            run = report["runs"][0]
            yield {
                "kind": KIND,
                "level": level,
                "per_second": run["committed_per_second"],
                "p50_ms": run["latency_us"]["p50"] / 1000,
                "p99_ms": run["latency_us"]["p99"] / 1000,
                "errors": run["failed"] + sum(run["refusals"].values()),
                "problems": report["problems"],
            }


def agree(participants, told, before, seconds=20):
    """Compares what the client was told with what each participant was told to do.

    `before` are the counts of earlier levels. A transaction whose outcome the client does not know
    (an error) may have been confirmed or not. Answers with what is wrong, and the counts now.
    """
    low = told["total_committed"]
    high = low + told["total_errors"]
    until = time.monotonic() + seconds
    while True:
        now = [part.ask("counts", 10) for part in participants]
        confirmed = [n["confirmed"] - b["confirmed"] for n, b in zip(now, before)]
        wrong = [
            f"participant {i + 1} confirmed {count} of {low} committed transactions"
            for i, count in enumerate(confirmed)
            if not low <= count <= high
        ]
        if not wrong or time.monotonic() > until:
            return wrong, now
        time.sleep(0.2)


def row(level, told, wrong):
    if told.get("first_error"):
        wrong = wrong + [f"{told['total_errors']} errors, the first: {told['first_error']}"]
    return {
        "kind": KIND,
        "level": level,
        "per_second": told["committed"] / told["seconds"],
        "p50_ms": told["p50_ms"],
        "p99_ms": told["p99_ms"],
        "errors": told["total_errors"],
        "problems": wrong,
    }


NOTHING = {"tried": 0, "confirmed": 0, "cancelled": 0}


class Dtm:
    """DTM's TCC over gRPC, with Redis or the embedded bolt as its store."""

    def __init__(self, store, wait="finished"):
        self.store, self.wait = store, wait
        self.name = f"DTM ({'Redis' if store == 'redis' else 'bolt'})"

    def prepare(self):
        go_build("dtm", {"dtm": "github.com/dtm-labs/dtm", "dtm-parts": "."})
        version = "DTM 1.19.0"
        if self.store == "redis":
            redis = need("redis-server", "apt-get install redis-server")
            words = subprocess.run([redis, "--version"], capture_output=True, text=True).stdout
            version += " with Redis " + words.split("v=")[1].split()[0]
        else:
            version += " with bbolt"
        return version

    def measure(self, directory, levels, seconds, warmup):
        parts = HERE / "dtm" / "bin" / "dtm-parts"
        with Processes(directory) as processes:
            store = "  Driver: boltdb\n" if self.store == "bolt" else self.redis(processes)
            address = self.server(processes, store)
            participants = [
                processes.part(f"participant-{i + 1}", [parts, "participant"])
                for i in range(PARTICIPANTS)
            ]
            client = processes.part(
                "client", [parts, "client", address, *(part.first for part in participants)]
            )
            counts = [NOTHING] * PARTICIPANTS
            for level in levels:
                # The embedded bolt does a few hundred per second: a thousand at once take seconds.
                not_counted = 1 + (level // 100 if self.store == "bolt" else 0)
                question = f"{level} {not_counted} {seconds} {self.wait}"
                told = client.ask(question, 90 + 4 * seconds)
                wrong, counts = agree(participants, told, counts)
                yield row(level, told, wrong)

    @staticmethod
    def redis(processes):
        """Every write is in the append-only file and synced before it is answered."""
        port = free_port()
        processes.server(
            "redis",
            ["redis-server", "--bind", "127.0.0.1", "--port", port, "--dir", processes.directory,
             "--appendonly", "yes", "--appendfsync", "always", "--save", "",
             "--auto-aof-rewrite-percentage", "0"],
            port,
        )  # fmt: skip
        return f"  Driver: redis\n  Host: 127.0.0.1\n  Port: {port}\n"

    @staticmethod
    def server(processes, store):
        """DTM listens on all interfaces; it has no setting for that. Its bolt file is in the
        directory where it runs. A connection pool of DTM's Redis client is ten for each of
        GOMAXPROCS, and what several connections write shares a sync, so it is given more."""
        http, grpc, json_rpc = free_port(), free_port(), free_port()
        config = processes.directory / "dtm.yml"
        config.write_text(
            f"Store:\n{store}HttpPort: {http}\nGrpcPort: {grpc}\nJsonRpcPort: {json_rpc}\n"
            "LogLevel: error\nRequestTimeout: 30\nTimeoutToFail: 120\nRetryInterval: 60\n"
        )
        binary = HERE / "dtm" / "bin" / "dtm"
        processes.server("dtm", [binary, "-c", config], grpc, env={"GOMAXPROCS": GOMAXPROCS})
        return f"127.0.0.1:{grpc}"


GOMAXPROCS = "8"


class Seata:
    """Seata's TCC, with its store in files that are synced for each step."""

    name = "Seata"
    # Threads for as many transactions as are under way: with fewer they wait for each other.
    THREADS = 512

    def prepare(self):
        maven_build("seata")
        jar = next((HERE / "seata" / "target" / "lib").glob("seata-server-*.jar"))
        return "Seata " + jar.stem.removeprefix("seata-server-")

    def measure(self, directory, levels, seconds, warmup):
        with Processes(directory) as processes:
            address = self.server(processes)
            participants = [
                processes.part(f"participant-{i + 1}", self.java(address, f"participant-{i + 1}"))
                for i in range(PARTICIPANTS)
            ]
            client = processes.part(
                "client", self.java(address, *(part.first for part in participants))
            )
            told = client.ask(f"64 {warmup} 1", 60 + 4 * warmup)
            _, counts = agree(participants, told, [NOTHING] * PARTICIPANTS)
            for level in levels:
                told = client.ask(f"{level} 2 {seconds}", 90 + 4 * seconds)
                wrong, counts = agree(participants, told, counts)
                yield row(level, told, wrong)

    def server(self, processes):
        folder = HERE / "seata"
        console, port = free_port(), free_port()
        settings = {
            "server.port": console,
            "log.home": processes.directory,
            "logging.config": folder / "target" / "classes" / "logback.xml",
            "seata.server.service-port": port,
            "seata.store.mode": "file",
            "seata.store.file.dir": processes.directory / "sessions",
            "seata.store.file.flush-disk-mode": "sync",
            "transport.minServerPoolSize": self.THREADS,
            "transport.maxServerPoolSize": self.THREADS,
        }
        processes.server(
            "seata",
            ["java", "-Xms1g", "-Xmx2g", *(f"-D{name}={value}" for name, value in settings.items()),
             "-cp", f"{folder}/target/lib/*", "io.seata.server.ServerApplication",
             "-h", "127.0.0.1"],
            port,
            seconds=120,
        )  # fmt: skip
        return f"127.0.0.1:{port}"

    @staticmethod
    def java(address, *arguments):
        """A participant, when `arguments` is one name, or the client of several addresses."""
        program = "compare.Client" if len(arguments) > 1 else "compare.Participant"
        target = HERE / "seata" / "target"
        # With the server's Spring on its path the client would look there for its settings.
        jars = [
            str(jar)
            for jar in sorted((target / "lib").glob("*.jar"))
            if not jar.name.startswith(("seata-server-", "seata-spring-"))
        ]
        path = ":".join([str(target / "classes"), *jars])
        return [
            "java", "-Xms256m", "-Xmx1g",
            "-Dservice.vgroupMapping.compare=default",
            # Each request goes out at once; gathered ones wait for a timer, and were slower.
            "-Dtransport.enableRmClientBatchSendRequest=false",
            f"-Dservice.default.grouplist={address}",
            "-cp", path, program, *arguments,
        ]  # fmt: skip


def systems(handfast):
    """By the names that --only knows."""
    return {
        "handfast": Handfast(handfast, "decided"),
        "handfast-finished": Handfast(handfast, "finished"),
        "seata": Seata(),
        "dtm-redis": Dtm("redis"),
        "dtm-bolt": Dtm("bolt"),
    }
