drop table if exists cursors;
drop table if exists events;
