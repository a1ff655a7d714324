"""A PostgreSQL and a MariaDB of one's own, on free ports of the loopback interface.

They have the settings of those that `handfast bench db` starts for itself: everything synced, as
both do by default, and room for as many prepared transactions and connections as anybody here
needs. As root they run as the users of their packages, since PostgreSQL refuses to run as root.
"""

import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path

from running import Failed, Missing, Processes, as_user, free_port


class Databases:
    """Both servers; the same for all that use them."""

    def __init__(self):
        self.processes = None
        self.postgres_port = self.mariadb_port = 0

    @staticmethod
    def versions():
        lines = [
            subprocess.run([program, "--version"], capture_output=True, text=True).stdout
            for program in (postgres("postgres"), mariadb("mariadbd"))
        ]
        return (
            f"PostgreSQL {lines[0].split(')')[1].split()[0]} and "
            f"MariaDB {lines[1].split('Ver ')[1].split('-')[0]}"
        )

    def start(self, parent):
        self.processes = Processes(parent)
        # The servers' users must be able to come to what is theirs below it.
        parent.chmod(0o711)
        self.postgres_port = self.start_postgres(parent / "postgres")
        self.mariadb_port = self.start_mariadb(parent / "mariadb")

    def stop(self):
        if self.processes:
            self.processes.end()

    def start_postgres(self, directory):
        user = owned(directory, "postgres", "postgresql")
        data, port = directory / "data", free_port()
        once(
            directory, user,
            [postgres("initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8",
             "--no-sync"],
        )  # fmt: skip
        settings = [
            "listen_addresses=127.0.0.1", "unix_socket_directories=",
            "fsync=on", "synchronous_commit=on",
            "max_prepared_transactions=1000", "max_connections=1000",
        ]  # fmt: skip
        words = [word for setting in settings for word in ("-c", setting)]
        self.processes.server(
            "postgres", [postgres("postgres"), "-D", data, "-p", port, *words], port,
            user=user, ends_with=signal.SIGINT,
        )  # fmt: skip
        return port

    def start_mariadb(self, directory):
        user = owned(directory, "mysql", "mariadb-server")
        data, port = directory / "data", free_port()
        # A server that starts removes every temporary table of the directory that it is given.
        owned(directory / "tmp", "mysql", "mariadb-server")
        once(
            directory, user,
            [mariadb("mariadb-install-db"), "--no-defaults", "--skip-test-db",
             "--skip-name-resolve", "--auth-root-authentication-method=normal",
             f"--datadir={data}", f"--tmpdir={directory / 'tmp'}"],
        )  # fmt: skip
        # The server makes a database of each directory that it finds.
        owned(data / "handfast", "mysql", "mariadb-server")
        self.processes.server(
            "mariadb",
            [mariadb("mariadbd"), "--no-defaults", f"--datadir={data}",
             f"--tmpdir={directory / 'tmp'}", f"--port={port}", f"--socket={directory / 'socket'}",
             f"--pid-file={directory / 'pid'}", "--bind-address=127.0.0.1", "--skip-name-resolve",
             "--innodb-buffer-pool-size=64M", "--innodb-flush-log-at-trx-commit=1",
             "--innodb-fast-shutdown=1", "--max-connections=1000"],
            port,
            user=user,
        )  # fmt: skip
        return port

    def handfast(self):
        """The options of `handfast bench db`."""
        return [
            "--postgres", f"postgres://postgres@127.0.0.1:{self.postgres_port}/postgres",
            "--mariadb", f"mysql://root@127.0.0.1:{self.mariadb_port}/handfast",
        ]  # fmt: skip


def postgres(program):
    """In PATH, or the newest version under Debian's directory."""
    found = [
        path
        for path in Path("/usr/lib/postgresql").glob(f"*/bin/{program}")
        if path.parts[-3].isdigit()
    ]
    newest = max(found, key=lambda path: int(path.parts[-3]), default=None)
    return installed(shutil.which(program) or newest, program, "postgresql")


def mariadb(program):
    path = os.environ.get("PATH", "") + ":/usr/sbin"
    return installed(shutil.which(program, path=path), program, "mariadb-server")


def installed(path, program, package):
    if not path:
        raise Missing(f"{program} is not installed: apt-get install {package}")
    return path


def owned(directory, name, package):
    """Makes a directory for a server; answers with whom that has to run as, None being ourselves."""
    directory.mkdir()
    if os.geteuid() != 0:
        return None
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        raise Missing(f"there is no user {name}: apt-get install {package}") from None
    os.chown(directory, user.pw_uid, user.pw_gid)
    return user


def once(directory, user, argv):
    """Runs a program to its end, as the server's user."""
    done = subprocess.run(
        [str(word) for word in argv], cwd=directory, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=120, **as_user(user),
    )  # fmt: skip
    if done.returncode:
        raise Failed(f"{argv[0]} failed:\n{(done.stdout + done.stderr)[-2000:]}")
