package compare;

import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.concurrent.ConcurrentLinkedDeque;
import javax.sql.XAConnection;
import javax.sql.XADataSource;
import javax.transaction.xa.XAResource;

/**
 * The accounts in one database, with the tables and the SQL of `handfast bench db`, and a pool of XA
 * connections to it. A connection is opened when none is idle, and the one that was used last is
 * taken first.
 */
final class Bank {
    private static final int ACCOUNTS = 10_000;
    private static final long START = 1_000_000;
    /** What `handfast bench db` writes for a transfer. */
    private static final short WAY = 0;

    private final String name;
    private final XADataSource source;
    private final int change;
    private final String prepared;
    private final ConcurrentLinkedDeque<Session> idle = new ConcurrentLinkedDeque<>();

    /** `change` is what a transfer adds; `prepared` is SQL with a row for each prepared branch. */
    Bank(String name, XADataSource source, int change, String prepared) {
        this.name = name;
        this.source = source;
        this.change = change;
        this.prepared = prepared;
    }

    Session take() throws SQLException {
        Session session = idle.pollFirst();
        return session == null ? new Session() : session;
    }

    void give(Session session) {
        idle.addFirst(session);
    }

    /** Makes the tables anew. */
    void create() throws SQLException {
        StringBuilder rows = new StringBuilder("INSERT INTO bench_account VALUES ");
        for (int number = 0; number < ACCOUNTS; number++) {
            rows.append(number == 0 ? "(" : ", (").append(number).append(", ").append(START).append(')');
        }
        Session session = take();
        try (Statement statement = session.connection.createStatement()) {
            statement.execute("DROP TABLE IF EXISTS bench_account, bench_effect");
            statement.execute(
                    "CREATE TABLE bench_account (number bigint PRIMARY KEY, amount bigint NOT NULL)");
            statement.execute(
                    "CREATE TABLE bench_effect"
                            + " (transaction bigint PRIMARY KEY, way smallint NOT NULL)");
            statement.execute(rows.toString());
        } finally {
            give(session);
        }
    }

    /** What is wrong after so many transfers; nothing if all is right. */
    String check(long transfers) throws SQLException {
        Session session = take();
        try (Statement statement = session.connection.createStatement()) {
            return differs(
                            "the sum of the accounts",
                            ACCOUNTS * START + change * transfers,
                            number(statement, "SELECT sum(amount) FROM bench_account"))
                    + differs(
                            "transfers",
                            transfers,
                            number(statement, "SELECT count(*) FROM bench_effect"))
                    + differs("prepared branches", 0, rows(statement, prepared));
        } finally {
            give(session);
        }
    }

    private String differs(String what, long told, long is) {
        return told == is ? "" : what + " in " + name + " should be " + told + " and are " + is + "; ";
    }

    private static long number(Statement statement, String sql) throws SQLException {
        try (ResultSet row = statement.executeQuery(sql)) {
            row.next();
            return row.getLong(1);
        }
    }

    private static long rows(Statement statement, String sql) throws SQLException {
        long count = 0;
        try (ResultSet rows = statement.executeQuery(sql)) {
            while (rows.next()) {
                count++;
            }
        }
        return count;
    }

    /** A connection with its statements, which stay prepared. */
    final class Session {
        final XAResource resource;
        private final XAConnection pooled;
        private final Connection connection;
        private PreparedStatement update;
        private PreparedStatement insert;

        private Session() throws SQLException {
            pooled = source.getXAConnection();
            resource = pooled.getXAResource();
            connection = pooled.getConnection();
        }

        /** One side of a transfer. */
        Void work(long transfer) throws SQLException {
            if (update == null) {
                update =
                        connection.prepareStatement(
                                "UPDATE bench_account SET amount = amount + (" + change
                                        + ") WHERE number = ?");
                insert = connection.prepareStatement("INSERT INTO bench_effect VALUES (?, ?)");
            }
            update.setLong(1, ((transfer * 0x9e37_79b9_7f4a_7c15L) >>> 32) % ACCOUNTS);
            update.executeUpdate();
            insert.setLong(1, transfer);
            insert.setShort(2, WAY);
            insert.executeUpdate();
            return null;
        }

        /** For good. */
        void close() {
            try {
                pooled.close();
            } catch (SQLException already) {
                // It is not used again either way.
            }
        }
    }
}
