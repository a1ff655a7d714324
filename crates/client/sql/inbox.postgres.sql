-- Events that a service has processed, in its own PostgreSQL database: one row for each, written in
-- the same transaction as the work. `subscription` is `<32 hex store>.<subscription's number>`,
-- because a subscription, or a store, that is made anew under the same name has other offsets.
-- The application's role needs SELECT, INSERT and DELETE.
CREATE TABLE IF NOT EXISTS public.handfast_inbox (
    subscription varchar(64) NOT NULL,
    event_offset bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (subscription, event_offset)
);
