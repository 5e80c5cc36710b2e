create table events (
    id         integer primary key autoincrement,
    foreign_id text not null,
    timestamp  text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    type       integer not null,
    metadata   blob,
    trace      blob
);
create table cursors (
    id            text primary key not null,
    last_event_id integer not null,
    updated_at    text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);
