-- The tables of handfast in a PostgreSQL database (13 or later).
-- They are in the schema public and always named with it: were an application's search_path to
-- lead to another table of this name, its markers would not be seen and its outcomes misjudged.
CREATE TABLE IF NOT EXISTS public.handfast_branch (
    id varchar(64) PRIMARY KEY,
    outcome varchar(16) NOT NULL CHECK (outcome IN ('committed', 'aborted')),
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE IF NOT EXISTS public.handfast_owner (
    store_id varchar(36) NOT NULL,
    shard bigint NOT NULL,
    epoch bigint NOT NULL,
    node varchar(255) NOT NULL,
    opening varchar(36) NOT NULL,
    durable_lsn bigint NOT NULL,
    claim bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (store_id, shard)
);
REVOKE ALL ON public.handfast_branch, public.handfast_owner FROM PUBLIC;
-- The application's role may insert markers, and nothing else:
-- GRANT INSERT ON public.handfast_branch TO "application";
