-- Events that a service has processed, in its own MariaDB database: one row for each, written in
-- the same transaction as the work. `subscription` is `<32 hex store>.<subscription's number>`,
-- because a subscription, or a store, that is made anew under the same name has other offsets.
-- The application's account needs SELECT, INSERT and DELETE.
CREATE TABLE IF NOT EXISTS handfast_inbox (
    subscription varchar(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    event_offset bigint NOT NULL,
    at timestamp(6) NOT NULL DEFAULT current_timestamp(6),
    PRIMARY KEY (subscription, event_offset)
) ENGINE = InnoDB;
