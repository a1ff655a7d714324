-- The tables of handfast in a MariaDB database (10.6 or later).
-- They have to be in the database that is registered with the server. The marker's statement names
-- that database, so that the application's session may be in another one of the same server.
CREATE TABLE IF NOT EXISTS handfast_branch (
    id varchar(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    outcome enum('committed', 'aborted') CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    at timestamp(6) NOT NULL DEFAULT current_timestamp(6)
) ENGINE = InnoDB;
CREATE TABLE IF NOT EXISTS handfast_owner (
    store_id varchar(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    shard bigint NOT NULL,
    epoch bigint NOT NULL,
    node varchar(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    opening varchar(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    durable_lsn bigint NOT NULL,
    claim bigint NOT NULL,
    at timestamp(6) NOT NULL DEFAULT current_timestamp(6),
    PRIMARY KEY (store_id, shard)
) ENGINE = InnoDB;
-- The application's account may insert markers, and nothing else:
-- GRANT INSERT ON `database`.handfast_branch TO 'application'@'%';
