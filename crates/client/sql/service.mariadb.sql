-- The durable state of services in a MariaDB database, beside their own tables: what they have
-- voted, and how it ended. A row of the first table is one service's state; its id is made at
-- random, so a copy of the rows is another state, and to use both would be to finish twice.
-- The service's account needs SELECT, INSERT, UPDATE and DELETE on all three.
CREATE TABLE IF NOT EXISTS handfast_service_state (
    service varchar(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    state_id binary(16) NOT NULL,
    layout bigint NOT NULL,
    steps bigint NOT NULL DEFAULT 0
) ENGINE = InnoDB;
-- For each store of a server: when the latest transaction began whose outcome was forgotten here.
-- began, here and below: the store's id, the epoch and the place in its log (16, 4 and 8 bytes).
CREATE TABLE IF NOT EXISTS handfast_service_horizon (
    service varchar(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    store_id binary(16) NOT NULL,
    began binary(28) NOT NULL,
    PRIMARY KEY (service, store_id)
) ENGINE = InnoDB;
-- state: 1 prepared, 2 committed, 3 aborted. Times are Unix milliseconds.
CREATE TABLE IF NOT EXISTS handfast_service_branch (
    service varchar(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    transaction_id binary(16) NOT NULL,
    state bigint NOT NULL CHECK (state IN (1, 2, 3)),
    work longblob CHECK ((work IS NOT NULL) = (state = 1)),
    reason blob CHECK (reason IS NULL OR state = 3),
    retryable bigint CHECK ((retryable IS NULL) = (reason IS NULL)),
    began binary(28),
    at_unix_ms bigint NOT NULL,
    PRIMARY KEY (service, transaction_id),
    KEY handfast_service_prepared (service, state, transaction_id),
    KEY handfast_service_outcome (service, at_unix_ms, transaction_id)
) ENGINE = InnoDB;
