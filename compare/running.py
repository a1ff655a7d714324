"""Processes, ports and builds for compare.py: whatever is started here is stopped here, by its id.

Must never end, or speak to, a process that it did not start.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent


class Missing(Exception):
    """Something that has to be installed first; says what and how."""


class Failed(Exception):
    """A part did not do what it is for; says which, and what it wrote."""


def need(program, how):
    found = shutil.which(program)
    if not found:
        raise Missing(f"{program} is not installed: {how}")
    return found


def say(text):
    """A progress line, replaced by the next one on a terminal."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
    else:
        print(text, file=sys.stderr, flush=True)


def build(folder, argv, seconds=900):
    """Runs a build tool in one of the folders here; its output only matters when it fails."""
    say(f"building {folder}: {' '.join(argv)}")
    done = subprocess.run(argv, cwd=HERE / folder, capture_output=True, text=True, timeout=seconds)
    if done.returncode:
        raise Failed(f"{' '.join(argv)} in {folder} failed:\n{(done.stdout + done.stderr)[-3000:]}")


def newer(target, folder, *patterns):
    """Whether `target` is there and younger than every source in `folder`."""
    if not target.exists():
        return False
    sources = [path for pattern in patterns for path in (HERE / folder).glob(pattern)]
    return all(path.stat().st_mtime <= target.stat().st_mtime for path in sources)


def go_build(folder, outputs):
    """Builds Go programs into `folder`/bin; `outputs` is a name to package for each."""
    need("go", "apt-get install golang, or https://go.dev/dl (1.26 or later)")
    for name, package in outputs.items():
        if not newer(HERE / folder / "bin" / name, folder, "*.go", "go.*"):
            build(folder, ["go", "build", "-o", f"bin/{name}", package])


def maven_build(folder):
    need("java", "apt-get install openjdk-17-jdk-headless")
    need("mvn", "apt-get install maven")
    if not newer(HERE / folder / "target" / "lib" / "built", folder, "pom.xml", "src/**/*"):
        build(folder, ["mvn", "-B", "-q", "clean", "package"])
        (HERE / folder / "target" / "lib" / "built").touch()


def free_port():
    """A loopback port that nobody listened on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def syncs_per_second(directory, seconds=0.5):
    """How often a growing file can be appended to and synced just now, by one who does only that:
    it says how busy the disk and the processors are with something else."""
    path = Path(directory) / "probe"
    count, until = 0, time.monotonic() + seconds
    with open(path, "wb", buffering=0) as file:
        while time.monotonic() < until:
            file.write(bytes(512))
            os.fdatasync(file.fileno())
            count += 1
    path.unlink()
    return count / seconds


def as_user(user):
    """For `subprocess`: to run as an entry of the password file, or as ourselves."""
    if user is None:
        return {}
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


class Processes:
    """The processes of one system, in one directory; leaving the `with` block ends them all."""

    def __init__(self, directory):
        self.directory = Path(directory)
        self.running = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    def end(self):
        for process, ends_with in reversed(self.running):
            self.stop(process, ends_with)

    @staticmethod
    def stop(process, ends_with, seconds=10):
        if process.poll() is None:
            process.send_signal(ends_with)
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for stream in (process.stdin, process.stdout):
            if stream:
                stream.close()

    def start(self, name, argv, piped=False, env=None, user=None, ends_with=signal.SIGTERM):
        """Starts a process in the directory; what it writes goes to NAME.log there."""
        with open(self.directory / f"{name}.log", "ab") as log:
            process = subprocess.Popen(
                [str(word) for word in argv],
                cwd=self.directory,
                env={**os.environ, **(env or {})},
                stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
                stdout=subprocess.PIPE if piped else log,
                stderr=log,
                text=True,
                start_new_session=True,
                **as_user(user),
            )
        self.running.append((process, ends_with))
        return process

    def server(self, name, argv, port, seconds=60, **options):
        """Starts a server and waits until somebody listens on its port; options as for `start`."""
        process = self.start(name, argv, **options)
        until = time.monotonic() + seconds
        while True:
            with socket.socket() as probe:
                probe.settimeout(1)
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return process
            if process.poll() is not None or time.monotonic() > until:
                raise Failed(f"{name} does not listen on {port}:\n{self.log(name)}")
            time.sleep(0.1)

    def part(self, name, argv, seconds=60, env=None):
        """Starts a process that is talked to in lines."""
        return Part(self, name, self.start(name, argv, piped=True, env=env), seconds)

    def log(self, name):
        return (self.directory / f"{name}.log").read_text(errors="replace")[-2000:]


class Part:
    """A process that says one line when it is ready and answers each line with a line of JSON."""

    def __init__(self, processes, name, process, seconds):
        self.processes, self.name, self.process = processes, name, process
        self.first = self.line(seconds)

    def line(self, seconds):
        """The next line; the process is ended when it takes longer."""
        late = threading.Timer(seconds, self.process.kill)
        late.start()
        line = self.process.stdout.readline()
        late.cancel()
        if not line:
            log = self.processes.log(self.name)
            raise Failed(f"{self.name} ended, or said nothing for {seconds:.0f} s:\n{log}")
        return line.strip()

    def ask(self, question, seconds):
        self.process.stdin.write(question + "\n")
        self.process.stdin.flush()
        return json.loads(self.line(seconds))


def handfast_version(binary):
    argv = [str(binary), "--version"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def handfast_bench(binary, directory, seconds, *words):
    """One `handfast bench`; its report, also when it is one with problems.

    Its store is in `directory`: where temporary files are, and where commands that know --dir are
    told to make it.
    """
    argv = [str(binary), "bench", *words, "--json", "--quiet"]
    if words[0] != "db":
        argv += ["--dir", str(directory)]
    env = {**os.environ, "TMPDIR": str(directory)}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds, env=env)
    try:
        report = json.loads(done.stdout)
    except json.JSONDecodeError:
        report = {}
    if "runs" not in report:
        raise Failed(f"{' '.join(argv)} failed:\n{(done.stdout + done.stderr)[-2000:]}")
    return report
