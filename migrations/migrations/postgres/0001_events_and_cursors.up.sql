create table events (
    id         bigint generated always as identity primary key,
    foreign_id text not null,
    timestamp  timestamptz not null default now(),
    type       integer not null,
    metadata   bytea,
    trace      bytea
);
create table cursors (
    id            text primary key,
    last_event_id bigint not null,
    updated_at    timestamptz not null default now()
);
