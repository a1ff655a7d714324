-- The durable state of services in a PostgreSQL database, beside their own tables: what they have
-- voted, and how it ended. A row of the first table is one service's state; its id is made at
-- random, so a copy of the rows is another state, and to use both would be to finish twice.
-- The service's role needs SELECT, INSERT, UPDATE and DELETE on all three.
CREATE TABLE IF NOT EXISTS public.handfast_service_state (
    service varchar(64) PRIMARY KEY,
    state_id bytea NOT NULL CHECK (length(state_id) = 16),
    layout bigint NOT NULL,
    steps bigint NOT NULL DEFAULT 0
);
-- For each store of a server: when the latest transaction began whose outcome was forgotten here.
-- began, here and below: the store's id, the epoch and the place in its log (16, 4 and 8 bytes).
CREATE TABLE IF NOT EXISTS public.handfast_service_horizon (
    service varchar(64) NOT NULL,
    store_id bytea NOT NULL CHECK (length(store_id) = 16),
    began bytea NOT NULL CHECK (length(began) = 28),
    PRIMARY KEY (service, store_id)
);
-- state: 1 prepared, 2 committed, 3 aborted. Times are Unix milliseconds.
CREATE TABLE IF NOT EXISTS public.handfast_service_branch (
    service varchar(64) NOT NULL,
    transaction_id bytea NOT NULL CHECK (length(transaction_id) = 16),
    state bigint NOT NULL CHECK (state IN (1, 2, 3)),
    work bytea CHECK ((work IS NOT NULL) = (state = 1)),
    reason bytea CHECK (reason IS NULL OR state = 3),
    retryable bigint CHECK ((retryable IS NULL) = (reason IS NULL)),
    began bytea CHECK (length(began) = 28),
    at_unix_ms bigint NOT NULL,
    PRIMARY KEY (service, transaction_id)
);
CREATE INDEX IF NOT EXISTS handfast_service_prepared
    ON public.handfast_service_branch (service, transaction_id) WHERE state = 1;
CREATE INDEX IF NOT EXISTS handfast_service_outcome
    ON public.handfast_service_branch (service, at_unix_ms, transaction_id) WHERE state <> 1;
