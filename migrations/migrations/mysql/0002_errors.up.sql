create table if not exists consumer_errors (
    id           bigint not null auto_increment primary key,
    consumer     varchar(255) character set utf8mb4 collate utf8mb4_bin not null,
    event_id     varchar(255) character set utf8mb4 collate utf8mb4_bin not null,
    error_msg    text character set utf8mb4 not null,
    created_at   datetime(6) not null default (utc_timestamp(6)),
    updated_at   datetime(6) not null default (utc_timestamp(6)),
    error_status int not null,
    unique (consumer, event_id)
) engine=InnoDB;
create table if not exists consumer_errors_events (
    id         bigint not null auto_increment primary key,
    foreign_id varchar(255) character set utf8mb4 collate utf8mb4_bin not null,
    timestamp  datetime(6) not null default (utc_timestamp(6)),
    type       int not null,
    metadata   longblob,
    trace      mediumblob
) engine=InnoDB;
create table if not exists consumer_errors_letters (
    consumer        varchar(255) character set utf8mb4 collate utf8mb4_bin not null,
    position        bigint not null,
    event_id        varchar(255) character set utf8mb4 collate utf8mb4_bin not null,
    error_id        bigint not null,
    foreign_id      varchar(255) character set utf8mb4 collate utf8mb4_bin not null,
    event_type      int not null,
    event_timestamp datetime(6) not null,
    metadata        longblob,
    trace           mediumblob,
    error           text character set utf8mb4 not null,
    parked          boolean not null,
    redrives        int not null,
    last_error      text character set utf8mb4,
    requested       boolean not null,
    claim           bigint,
    claimed_until   datetime(6),
    created_at      datetime(6) not null default (utc_timestamp(6)),
    primary key (consumer, position),
    unique (consumer, event_id),
    index (consumer, foreign_id, position),
    index (consumer, requested, position)
) engine=InnoDB;
create table if not exists consumer_errors_positions (
    consumer      varchar(255) character set utf8mb4 collate utf8mb4_bin not null,
    last_position bigint not null,
    primary key (consumer)
) engine=InnoDB;
create table if not exists consumer_errors_attempts (
    consumer   varchar(255) character set utf8mb4 collate utf8mb4_bin not null,
    event_id   varchar(255) character set utf8mb4 collate utf8mb4_bin not null,
    attempts   bigint not null,
    updated_at datetime(6) not null default (utc_timestamp(6)),
    primary key (consumer, event_id)
) engine=InnoDB;
