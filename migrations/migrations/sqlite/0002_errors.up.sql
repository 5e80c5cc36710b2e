create table consumer_errors (
    id           integer primary key autoincrement,
    consumer     text not null,
    event_id     text not null,
    error_msg    text not null,
    created_at   text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    updated_at   text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    error_status integer not null,
    unique (consumer, event_id)
);
create table consumer_errors_events (
    id         integer primary key autoincrement,
    foreign_id text not null,
    timestamp  text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    type       integer not null,
    metadata   blob,
    trace      blob
);
create table consumer_errors_letters (
    consumer        text not null,
    position        integer not null,
    event_id        text not null,
    error_id        integer not null,
    foreign_id      text not null,
    event_type      integer not null,
    event_timestamp text not null,
    metadata        blob,
    trace           blob,
    error           text not null,
    parked          integer not null,
    redrives        integer not null,
    last_error      text,
    requested       integer not null,
    claim           integer,
    claimed_until   text,
    created_at      text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    primary key (consumer, position),
    unique (consumer, event_id)
);
create index consumer_errors_letters_foreign_id on consumer_errors_letters (consumer, foreign_id, position);
create index consumer_errors_letters_requested on consumer_errors_letters (consumer, requested, position);
create table consumer_errors_positions (
    consumer      text not null,
    last_position integer not null,
    primary key (consumer)
);
create table consumer_errors_attempts (
    consumer   text not null,
    event_id   text not null,
    attempts   integer not null,
    updated_at text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    primary key (consumer, event_id)
);
