create table if not exists events (
    id         bigint not null auto_increment primary key,
    foreign_id varchar(255) character set utf8mb4 collate utf8mb4_bin not null,
    timestamp  datetime(6) not null default (utc_timestamp(6)),
    type       int not null,
    metadata   longblob,
    trace      mediumblob
) engine=InnoDB;
create table if not exists cursors (
    id            varchar(255) character set utf8mb4 collate utf8mb4_bin not null primary key,
    last_event_id bigint not null,
    updated_at    datetime(6) not null default (utc_timestamp(6))
) engine=InnoDB;
