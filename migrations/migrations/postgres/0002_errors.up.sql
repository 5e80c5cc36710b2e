create table consumer_errors (
    id           bigint generated always as identity primary key,
    consumer     text not null,
    event_id     text not null,
    error_msg    text not null,
    created_at   timestamptz not null default now(),
    updated_at   timestamptz not null default now(),
    error_status integer not null,
    unique (consumer, event_id)
);
create table consumer_errors_events (
    id         bigint generated always as identity primary key,
    foreign_id text not null,
    timestamp  timestamptz not null default now(),
    type       integer not null,
    metadata   bytea,
    trace      bytea
);
create table consumer_errors_letters (
    consumer        text not null,
    position        bigint not null,
    event_id        text not null,
    error_id        bigint not null,
    foreign_id      text not null,
    event_type      integer not null,
    event_timestamp timestamptz not null,
    metadata        bytea,
    trace           bytea,
    error           text not null,
    parked          boolean not null,
    redrives        integer not null,
    last_error      text,
    requested       boolean not null,
    claim           bigint,
    claimed_until   timestamptz,
    created_at      timestamptz not null default now(),
    primary key (consumer, position),
    unique (consumer, event_id)
);
create index on consumer_errors_letters (consumer, foreign_id, position);
create index on consumer_errors_letters (consumer, requested, position);
create table consumer_errors_positions (
    consumer      text not null,
    last_position bigint not null,
    primary key (consumer)
);
create table consumer_errors_attempts (
    consumer   text not null,
    event_id   text not null,
    attempts   bigint not null,
    updated_at timestamptz not null default now(),
    primary key (consumer, event_id)
);
